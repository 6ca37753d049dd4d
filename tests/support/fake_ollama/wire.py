"""HTTP/1.1 as the fake runtime speaks it: quick, and aware of clients that hang up."""

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

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class Gone(Exception):
    """The client has hung up."""


@dataclass(slots=True)
class Request:
    method: str
    path: str
    body: bytes
    closing: bool


def dump(document: Any) -> bytes:
    """JSON as Go writes it: compact, in UTF-8, with <, > and & escaped."""
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


LAST_CHUNK = b"0\r\n\r\n"


class Connection:
    """One client; every method raises Gone once it has hung up."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLRDHUP)
        self._streaming = False

    def read(self) -> Request:
        """The next request; its body is as long as Content-Length says."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        top = self._buffer[:end]
        length = _LENGTH.search(top)
        size = end + 4 + (int(length[1]) if length else 0)
        while len(self._buffer) < size:
            self._receive()
        body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
        method, path, _ = top.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return Request(method, path, body, closing=bool(_CLOSE.search(top)))

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65536)
        except OSError as exc:
            raise Gone from exc
        if not data:
            raise Gone
        self._buffer += data

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as exc:
            raise Gone from exc

    def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        self.send(head(status, content_type, len(body)) + body)

    def line(self, document: Any) -> None:
        """One NDJSON object; the headers go out with the first."""
        start = b"" if self._streaming else head(200, NDJSON, None)
        self._streaming = True
        self.send(start + chunk(dump(document) + b"\n"))

    def end(self) -> None:
        """The stream is over, whole as far as HTTP knows."""
        self.send(LAST_CHUNK if self._streaming else head(200, NDJSON, None) + LAST_CHUNK)
        self._streaming = False

    @property
    def gone(self) -> bool:
        look = select.poll()  # of its own, for others ask while this client's thread waits
        try:
            look.register(self._sock, select.POLLRDHUP)
        except ValueError:
            return True  # we were the ones to hang up, and its thread has not got so far yet
        return bool(look.poll(0))

    def wait(self, seconds: float) -> None:
        """Let time pass; a hang-up ends the wait at once."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._poll.poll(left * 1000):
                raise Gone

    def wait_for_hang_up(self) -> None:
        while True:
            self.wait(3600)

    def reset(self) -> None:
        """Hang up rudely: the client sees a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._sock.close()


class Listener:
    """A port that answers, until it is closed; it can be opened again."""

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
        """Refuse connections from now on, and break those that are open."""
        listening, self._socket = self._socket, None
        if listening is not None:
            # Without the shutdown, the accept that is under way would take one more.
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it left by itself

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
        except Gone:
            pass
        finally:
            self._clients.discard(client)
            connection.close()
