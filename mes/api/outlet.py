"""The outlet: the way to a client, for who would rather do something else than wait."""

from __future__ import annotations

import select
import socket


class Outlet:
    """Writes what the server would write, once that has begun the answer and while it does nothing.

    For one thread at a time, whichever that is. Without a socket all goes through the server.
    """

    def __init__(self, sock: socket.socket | None, *, in_chunks: bool) -> None:
        self._sock = sock
        self._in_chunks = in_chunks
        self._is_open = False
        self._unsent = b""
        self._room = select.poll()
        if sock is not None and sock.fileno() >= 0:
            self._room.register(sock, select.POLLOUT | select.POLLRDHUP)

    def open(self) -> None:
        """The server has begun the answer."""
        self._is_open = self._sock is not None

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Can something be sent without a wait, or within so many seconds? False once it left."""
        for _, what in self._room.poll(within * 1000):
            return bool(what & select.POLLOUT)
        return self._sock is None

    def take(self, data: bytes) -> bool:
        """Send what there is room for, and the rest later; False where nothing of it was taken."""
        if not self._is_open or (self._unsent and not self._rest_is_sent()):
            return False
        framed = b"%X\r\n%b\r\n" % (len(data), data) if self._in_chunks else data
        sent = self._send(framed)
        if 0 < sent < len(framed):
            self._unsent = framed[sent:]
        return sent > 0

    def flush(self) -> None:
        """Wait until all is sent that was taken."""
        unsent, self._unsent = self._unsent, b""
        if unsent and self._sock is not None:
            try:
                self._sock.sendall(unsent)
            except OSError:
                pass  # the server will find out as well, and knows what to do

    def shut_down(self) -> None:
        """Nothing more is sent. Any thread may call this; it wakes one that waits for room."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was quicker

    def _rest_is_sent(self) -> bool:
        self._unsent = self._unsent[self._send(self._unsent) :]
        return not self._unsent

    def _send(self, data: bytes) -> int:
        assert self._sock is not None
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return 0  # no room, or nobody there: both are for the stream's own thread
