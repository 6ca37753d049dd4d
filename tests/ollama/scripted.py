"""A runtime that sends exactly the bytes that a test scripts, connection by connection."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.recorded import all_exchanges

NDJSON = "application/x-ndjson"

# Marks lines that a recording leaves out.
_LEFT_OUT = re.compile(r"\.\.\. \d+ lines left out \.\.\.")


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the runtime received it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer:
    """The runtime's end of one connection."""

    def __init__(self, sock: socket.socket, asked: list[ReceivedRequest]) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self._asked = asked
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_request(self) -> ReceivedRequest | None:
        """Return the next request; None once the client has closed the connection."""
        line = self._file.readline().decode().strip()
        if not line:
            return None
        headers = {}
        while header := self._file.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0)))
        self._asked.append(ReceivedRequest(line, headers, body))
        return self._asked[-1]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def closed_within(self, seconds: float) -> bool:
        """Return whether the client closes the connection within this time."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        readable = poll.poll(seconds * 1000)
        try:
            return bool(readable) and self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def drip(self, data: bytes, *, every_seconds: float = 0.02) -> None:
        """Send one byte at a time, until the client closes the connection."""
        for byte in data:
            self.send(bytes([byte]))
            if self.closed_within(every_seconds):
                return

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()


Script = Callable[[Peer], None]


class ScriptedRuntime:
    """Runs one script for each connection, in order; the last one again for all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.asked: list[ReceivedRequest] = []
        self.connections = 0
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        except OSError:
            return  # closed already
        self._listener.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._run, args=(script, sock), daemon=True).start()

    def _run(self, script: Script, sock: socket.socket) -> None:
        try:
            script(Peer(sock, self.asked))
            sock.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError):
            pass  # the client disconnected, as many tests intend
        finally:
            sock.close()


def head(status: int = 200, **headers: str) -> bytes:
    """Return a status line and headers; `content_type="x"` becomes `Content-Type: x`."""
    lines = [f"HTTP/1.1 {status} Scripted"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


STREAM = head(content_type=NDJSON, transfer_encoding="chunked")
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def line(**part: Any) -> bytes:
    return json.dumps(part).encode() + b"\n"


def token(text: str) -> bytes:
    return line(model="m", response=text, done=False)


def last(**more: Any) -> bytes:
    counts = {"prompt_eval_count": 3, "eval_count": 2, "done_reason": "stop"}
    return line(**({"model": "m", "response": "", "done": True} | counts | more))


def streamed(*lines: bytes) -> bytes:
    """Return a complete response, each line in a chunk of its own."""
    return STREAM + b"".join(map(chunk, lines)) + END


def whole(body: bytes, status: int = 200, **headers: str) -> bytes:
    """Return a complete response with Content-Length."""
    return head(status, content_length=str(len(body)), **headers) + body


GOOD = streamed(token("Hel"), token("lo"), last())


def answers(*replies: bytes) -> Script:
    """Answer the requests of a connection in order; repeat the last reply."""

    def script(peer: Peer) -> None:
        for reply in _repeat_last(replies):
            if peer.read_request() is None:
                return
            peer.send(reply)

    return script


def _repeat_last(replies: tuple[bytes, ...]) -> Iterable[bytes]:
    yield from replies
    while True:
        yield replies[-1]


def once(reply: bytes) -> Script:
    """Answer one request and close the connection."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply)

    return script


def lines(case: str) -> list[bytes]:
    """Return the recorded lines, without the marks in place of lines that were left out."""
    recorded = all_exchanges()[case]["response"]["lines"]
    texts = [each["line"] for each in recorded if "line" in each]
    return [text.encode() for text in texts if not _LEFT_OUT.fullmatch(text)]


def replay(case: str) -> Script:
    """Send the recorded response to every request.

    Some recordings are shortened, so Content-Length is that of the lines that are sent.
    """
    recorded = all_exchanges()[case]["response"]
    headers = dict(recorded["headers"])
    if "Content-Length" in headers:
        headers["Content-Length"] = str(len(b"".join(lines(case))))
    fields = [f"HTTP/1.1 {recorded['status']} Recorded", *map(": ".join, headers.items())]
    start = "\r\n".join([*fields, "", ""]).encode()
    chunked = "Transfer-Encoding" in headers

    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(start)
            for text in lines(case):
                peer.send(chunk(text + b"\n") if chunked else text)
            if chunked:
                peer.send(END)

    return script
