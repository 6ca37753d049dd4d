"""Sending answers: the poller sends what a client does not read at once, so no thread waits."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_WRITE, BaseSelector
from typing import Any, Self

log = logging.getLogger("mes.requests")

# A client has STREAM_WRITE_TIMEOUT for each piece of this size, of a stream or another answer.
PIECE_BYTES = 65536

# Closing such a socket discards what the client has not read, also in the kernel.
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class ClientSocket(socket.socket):
    """A client's connection on which an answer is sent without waiting for the client.

    Bytes that the client does not read at once are kept until `send_unsent`. With `is_stream` set,
    `sendall` waits for the client as usual: a stream must not be made faster than it is read. Only
    a socket with SO_SNDTIMEO limits that wait.
    """

    __slots__ = ("_unsent", "is_stream")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_stream = False
        self._unsent: deque[memoryview] = deque()

    @classmethod
    def adopt(cls, sock: socket.socket) -> Self:
        """Return the connection of `sock`, which cannot be used any more."""
        family, kind, protocol = sock.family, sock.type, sock.proto
        return cls(family, kind, protocol, fileno=sock.detach())

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes that wait for the client."""
        return sum(map(len, self._unsent))

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some or all of the data; return the number of bytes that need no further call."""
        if self.is_stream or flags:
            return super().send(data, flags)
        self.sendall(data)
        return len(data)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all data; what the client does not read now is kept unless this is a stream.

        Raises:
            OSError: the client has disconnected, or reads the stream too slowly.
        """
        self._unsent.append(memoryview(data))
        if not self.is_stream:
            self.send_unsent()
        try:
            while self.is_stream and self._unsent:
                super().sendall(self._unsent.popleft(), flags)
        except BlockingIOError as exc:  # at SO_SNDTIMEO
            log.info("answer_not_read", extra={"address": self.getpeername()[0]})
            self.reset()
            raise BrokenPipeError(errno.EPIPE, "the client reads the stream too slowly") from exc

    def send_unsent(self) -> int:
        """Send what the client can take of the kept bytes. Return their number.

        Raises:
            OSError: the client has disconnected.
        """
        total = 0
        while self._unsent:
            try:
                sent = super().send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            total += sent
            if rest := self._unsent.popleft()[sent:]:
                self._unsent.appendleft(rest)
        return total

    def close(self) -> None:
        """Close the connection; bytes that the client has not read yet are not sent any more."""
        self._unsent.clear()
        super().close()

    def reset(self) -> None:
        """Close the connection and discard what the client has not read."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.close()


@dataclass
class _UnreadAnswer:
    deadline: float
    when_sent: Callable[[], None]
    sent_of_piece: int = 0


class UnreadAnswers:
    """The answers that clients have not read to their end. Only the poller's thread may use it.

    Args:
        seconds: the time that a client has for each piece. So both a client that stops and one that
            reads too slowly are disconnected, and the time for an answer is bounded.
        when_lost: called with a connection that was closed before its answer was sent.
    """

    def __init__(
        self, poller: BaseSelector, *, seconds: float, when_lost: Callable[[Any], None]
    ) -> None:
        self._poller = poller
        self._seconds = seconds
        self._when_lost = when_lost
        # Earliest deadline first, because a renewed one is moved to the end.
        self._answers: dict[Any, _UnreadAnswer] = {}

    def add(self, conn: Any, when_sent: Callable[[], None]) -> None:
        """Send the kept bytes of `conn.sock` as the client reads, then call `when_sent`."""
        conn.sock.setblocking(False)
        self._answers[conn] = _UnreadAnswer(time.monotonic() + self._seconds, when_sent)
        self._poller.register(conn.sock, EVENT_WRITE, partial(self._on_writable, conn))

    def close_expired(self) -> None:
        """Close the connections of the clients that have read too slowly."""
        now = time.monotonic()
        while self._answers:
            conn, answer = next(iter(self._answers.items()))
            if answer.deadline > now:
                break
            fields = {"address": conn.client[0], "unsent_bytes": conn.sock.unsent_bytes}
            log.info("answer_not_read", extra=fields)
            self._lose(conn)

    def _on_writable(self, conn: Any, _: socket.socket) -> None:
        try:
            sent = conn.sock.send_unsent()
        except OSError:  # the client has disconnected
            self._lose(conn)
            return
        if conn.sock.unsent_bytes:
            self._note_progress(conn, sent)
        else:
            self._remove(conn).when_sent()

    def _note_progress(self, conn: Any, sent: int) -> None:
        answer = self._answers[conn]
        answer.sent_of_piece += sent
        if answer.sent_of_piece >= PIECE_BYTES:
            answer.sent_of_piece %= PIECE_BYTES
            answer.deadline = time.monotonic() + self._seconds
            self._answers[conn] = self._answers.pop(conn)

    def _lose(self, conn: Any) -> None:
        self._remove(conn)
        conn.sock.reset()
        self._when_lost(conn)

    def _remove(self, conn: Any) -> _UnreadAnswer:
        self._poller.unregister(conn.sock)
        return self._answers.pop(conn)
