"""The minimal proxy in Python: reads each token, encodes it anew and forwards it.

It has one thread, and neither limits nor error handling. `bench.streaming` runs it to measure the
cost of a token that no implementation avoids:

    python -m bench.minimal_proxy PORT PORT_OF_THE_RUNTIME
"""

from __future__ import annotations

import selectors
import socket
import sys

import orjson


def main() -> None:
    port, runtime_port = map(int, sys.argv[1:])
    listener = socket.create_server(("127.0.0.1", port), backlog=100)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    client, _ = listener.accept()
                    runtime = socket.create_connection(("127.0.0.1", runtime_port))
                    runtime.sendall(client.recv(65536))
                    selector.register(runtime, selectors.EVENT_READ, (runtime, client))
                elif not _forward(*key.data):
                    selector.unregister(key.fileobj)


def _forward(runtime: socket.socket, client: socket.socket) -> bool:
    data = runtime.recv(16384)
    if not data:
        runtime.close()
        client.close()
        return False
    _, _, line = data.partition(b"\r\n")
    if not data.startswith(b"HTTP") and line.endswith(b'"done":false}\n\r\n'):
        token = {"type": "token", "text": orjson.loads(line[:-2])["response"]}
        line = orjson.dumps(token) + b"\n"
        data = b"%X\r\n%b\r\n" % (len(line), line)
    client.sendall(data)
    return True


if __name__ == "__main__":
    main()
