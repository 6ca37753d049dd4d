"""The least that Python can do in MES's place: tokens read, written anew and sent on, unjudged.

One thread, no limits, no errors. `bench.streaming` runs it to see what a token costs in any case:

    python -m bench.bare_relay PORT PORT_OF_THE_RUNTIME
"""

from __future__ import annotations

import selectors
import socket
import sys

import orjson


def main() -> None:
    port, runtime_port = map(int, sys.argv[1:])
    listener = socket.create_server(("127.0.0.1", port), backlog=100)
    with selectors.DefaultSelector() as arriving:
        arriving.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in arriving.select():
                if key.data is None:
                    client, _ = listener.accept()
                    runtime = socket.create_connection(("127.0.0.1", runtime_port))
                    runtime.sendall(client.recv(65536))
                    arriving.register(runtime, selectors.EVENT_READ, (runtime, client))
                elif not _pass_on(*key.data):
                    arriving.unregister(key.fileobj)


def _pass_on(runtime: socket.socket, client: socket.socket) -> bool:
    arrived = runtime.recv(16384)
    if not arrived:
        runtime.close()
        client.close()
        return False
    _, _, line = arrived.partition(b"\r\n")
    if not arrived.startswith(b"HTTP") and line.endswith(b'"done":false}\n\r\n'):
        token = {"type": "token", "text": orjson.loads(line[:-2])["response"]}
        line = orjson.dumps(token) + b"\n"
        arrived = b"%X\r\n%b\r\n" % (len(line), line)
    client.sendall(arrived)
    return True


if __name__ == "__main__":
    main()
