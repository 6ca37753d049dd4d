"""The reader of a connection: what a client sends, for as long as it may take to send it."""

from __future__ import annotations

import re
import socket
import time
from threading import BoundedSemaphore

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.unreader import SocketUnreader

# A request is gathered as a whole up to this size; of a larger one, only the head.
_GATHERED_BYTES = 32 * 1024

_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,9})\b", re.IGNORECASE)
_ASKS_FIRST = re.compile(rb"\nexpect:", re.IGNORECASE)


class TooSlow(ParseException):
    """A request did not arrive in time."""


class Reader(SocketUnreader):
    """Reads without waiting, or until a deadline, and waits only while few others do."""

    def __init__(self, sock: socket.socket, waits: BoundedSemaphore) -> None:
        super().__init__(sock)
        self.deadline = 0.0
        self._waits = waits
        self._ended = False

    @property
    def has_begun(self) -> bool:
        """Has anything arrived that nobody has taken yet?"""
        return bool(self.buf.getvalue())

    def gather(self) -> bool:
        """Take what has arrived of a request; can a thread do with it, without waiting?

        Raises ParseException where it can be no request, and OSError where the client has gone.
        """
        if not self._is_enough():
            self._take()
        return self._is_enough()

    def _take(self) -> None:
        try:
            data = self.sock.recv(_GATHERED_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._ended = not data
        self.buf.write(data)

    def _is_enough(self) -> bool:
        arrived = self.buf.getvalue()
        end = arrived.find(b"\r\n\r\n", 0, _GATHERED_BYTES)
        if end < 0:
            self._refuse_endless(arrived)
            return False
        whole = end + 4 + _length_of_body(arrived[:end])
        # Of one that was broken off, the application tells what is wrong.
        return len(arrived) >= whole or whole > _GATHERED_BYTES or self._ended

    def _refuse_endless(self, head: bytes) -> None:
        if self._ended:
            raise ConnectionResetError
        if len(head) >= _GATHERED_BYTES:
            raise LimitRequestHeaders("") if b"\n" in head else LimitRequestLine(len(head))

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next piece. Raises TimeoutError."""
        size = min(max(size_hint or 0, self.mxchunk), self.max_body_chunk)
        try:
            return bytes(self.sock.recv(size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return self._wait_for(size)

    def _wait_for(self, size: int) -> bytes:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0 or not self._waits.acquire(blocking=False):
            raise TimeoutError
        try:
            self.sock.settimeout(seconds)
            return bytes(self.sock.recv(size))
        finally:
            self.sock.settimeout(None)
            self._waits.release()


def _length_of_body(head: bytes) -> int:
    """How much will come by itself. The parser decides; a wrong guess here costs a wait at most."""
    length = _LENGTH.search(head)
    return 0 if length is None or _ASKS_FIRST.search(head) else int(length[1])
