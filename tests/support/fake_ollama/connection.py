"""A small, fast HTTP/1.1 server that notices at once when a client disconnects."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

JSON = "application/json; charset=utf-8"
BARE_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
LAST_CHUNK = b"0\r\n\r\n"

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class ClientGone(Exception):
    """The client has disconnected."""


@dataclass(slots=True)
class HttpRequest:
    method: str
    path: str
    body: bytes
    closes_connection: bool


def dump(document: Any) -> bytes:
    """Return JSON as Go writes it: compact, in UTF-8, with <, > and & escaped."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return escaped.encode("utf-8", "replace")


def head(status: int, content_type: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    reason = _REASONS.get(status, "Status")
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n".encode()
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection:
    """One client; methods that read, write or wait raise `ClientGone` once it has disconnected."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLRDHUP)
        self._streaming = False

    def read(self) -> HttpRequest:
        """Return the next request; the length of its body is its Content-Length."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        top = self._buffer[:end]
        length = _LENGTH.search(top)
        size = end + 4 + (int(length[1]) if length else 0)
        while len(self._buffer) < size:
            self._receive()
        body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
        method, path, _ = top.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return HttpRequest(method, path, body, closes_connection=bool(_CLOSE.search(top)))

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65536)
        except OSError as exc:
            raise ClientGone from exc
        if not data:
            raise ClientGone
        self._buffer += data

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as exc:
            raise ClientGone from exc

    def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        self.send(head(status, content_type, len(body)) + body)

    def line(self, document: Any) -> None:
        """Send one line of NDJSON; the first also sends the headers."""
        start = b"" if self._streaming else head(200, NDJSON, None)
        self._streaming = True
        self.send(start + chunk(dump(document) + b"\n"))

    def refuse(self, status: int, body: bytes, content_type: str) -> None:
        """Send an error: as a line of the stream if its status has been sent."""
        if not self._streaming:
            self.answer(status, body, content_type)
            return
        self.send(chunk(body + b"\n"))
        self.end()

    def end(self) -> None:
        """End the stream with the last chunk."""
        self.send(LAST_CHUNK if self._streaming else head(200, NDJSON, None) + LAST_CHUNK)
        self._streaming = False

    @property
    def gone(self) -> bool:
        poll = select.poll()  # not `_poll`, which the thread of this client may be waiting on
        try:
            poll.register(self._sock, select.POLLRDHUP)
        except ValueError:
            return True  # closed by us, and the thread of this client has not ended yet
        return bool(poll.poll(0))

    def wait(self, seconds: float) -> None:
        """Wait for `seconds`; a disconnect ends the wait at once."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._poll.poll(left * 1000):
                raise ClientGone

    def wait_for_disconnect(self) -> None:
        while True:
            self.wait(3600)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._sock.close()


class Listener:
    """A listening port that can be closed and opened again."""

    def __init__(self, port: int, serve: Callable[[Connection], None]) -> None:
        self._serve = serve
        self._clients: set[socket.socket] = set()
        self._socket: socket.socket | None = None
        self.connections = 0
        self.port = port
        self.open()

    def open(self) -> None:
        if self._socket is not None:
            return
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=4096)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def close(self) -> None:
        """Refuse new connections, and shut down the open ones."""
        listening, self._socket = self._socket, None
        if listening is not None:
            # Without the shutdown, the pending accept would take one more connection.
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # already disconnected

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(client,), daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        self._clients.add(client)
        connection = Connection(client)
        try:
            self._serve(connection)
        except ClientGone:
            pass
        finally:
            self._clients.discard(client)
            connection.close()
