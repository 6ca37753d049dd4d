"""One exchange with the runtime over HTTP, which another thread can cut off at any moment."""

from __future__ import annotations

import http.client
import itertools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, InvalidChunkLength, InvalidHeader

from mes.errors import ClientDisconnected, MesError, RuntimeReplyInvalid, RuntimeUnavailable
from mes.event_loop import EventLoop
from mes.ollama.chunked import decode_chunks
from mes.ollama.connections import RuntimeConnection, RuntimeHTTPResponse, this_thread

# It quotes what it cannot read, which may be what a model has said. We tell of it ourselves.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# The watch cuts at the deadline; the socket's own timeout only counts if the watch should fail.
_SOCKET_TIMEOUT_MARGIN_SECONDS = 1.0

# What was read at once is sent on at once, so it must fit into what a socket has room for.
_READ_BYTES = 16384

# The end of an answer that is known already is worth this long to save a new connection.
_DRAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Operation:
    """What an exchange is for, and what it means if it ends too late or breaks off."""

    name: str
    late: type[MesError]
    broken: type[MesError]


class ExchangeCancelled(Exception):
    """The exchange was over before its connection could be used."""


# What an exchange may end in.
_FAILURES = (OSError, HTTPError, http.client.HTTPException, MesError, ExchangeCancelled)


class OpenExchanges:
    """The exchanges that have not ended yet, so that all can be ended together."""

    def __init__(self) -> None:
        self._exchanges: set[Exchange] = set()
        self._why: Callable[[], MesError] | None = None

    def add(self, exchange: Exchange) -> None:
        self._exchanges.add(exchange)
        # Looked at after it was added: whoever ends all meanwhile has seen it, or is seen here.
        if self._why is not None:
            exchange.cut(self._why())

    def discard(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)

    def end(self, why: Callable[[], MesError]) -> None:
        """End all of them, and whatever still comes, each with an error of its own."""
        self._why = why
        for exchange in list(self._exchanges):
            exchange.cut(why())


class Exchange:
    """One question and its answer; whatever fails inside the block leaves it as a MesError.

    At the deadline, or when the caller hangs up, the socket is shut down, so that a blocked
    reader wakes wherever it is. A connection is reused only after a whole and sound answer.
    """

    def __init__(
        self,
        operation: Operation,
        *,
        where: str,
        event_loop: EventLoop,
        deadline: float,
        open_exchanges: OpenExchanges,
    ) -> None:
        self.reused = True  # until a connection is made for it
        self.connected = False
        self.wants_fresh_connection = False
        self.answer: HTTPResponse | None = None
        self._operation = operation
        self._where = where
        self._event_loop = event_loop
        self._deadline = deadline
        self._open_exchanges = open_exchanges
        self._over: MesError | None = None
        self._line: RuntimeConnection | None = None
        self._sock: socket.socket | None = None
        self._head: RuntimeHTTPResponse | None = None

    def __enter__(self) -> Self:
        if self.remaining_seconds <= 0:
            raise self._late()
        self._timer = self._event_loop.call_at(self._deadline, lambda: self.cut(self._late()))
        this_thread.exchange = self
        self._open_exchanges.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._open_exchanges.discard(self)
        this_thread.exchange = None
        if error is not None:
            self._shut_down()
        if self.answer is not None:
            self.answer.close()  # a whole answer has given its connection back by now
            self.answer.release_conn()
        self._sock = None
        if isinstance(error, _FAILURES) and not self._says_all(error):
            # In no name here: an error knows the frame it was raised in, and each would hold the
            # other, and all that was said, until the garbage collector comes by.
            raise self._meaning(error) from error

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def patience_seconds(self) -> float:
        """How long the socket may be silent."""
        return max(self.remaining_seconds, 0.0) + _SOCKET_TIMEOUT_MARGIN_SECONDS

    @property
    def answered(self) -> bool:
        """Has any of the answer come?"""
        return self._head is not None

    @property
    def hit_stale_connection(self) -> bool:
        """The runtime had closed the connection between two requests, and nothing came of this."""
        return self.reused and self.connected and not self.answered and self._over is None

    @property
    def source(self) -> socket.socket | None:
        """Can be read when the next of the pieces can be, and only then; None if that differs."""
        assert self.answer is not None
        # What TLS has deciphered, and what is read ahead of a plain body, waits in this process.
        return self._sock if self.answer.chunked and type(self._sock) is socket.socket else None

    def retry_on_fresh_connection(self) -> None:
        """Ask once more, on a connection that nobody has used."""
        self.wants_fresh_connection = True
        self.connected = False

    def hang_up(self) -> None:
        """Nobody waits for the answer any more. Any thread may call this."""
        self.cut(ClientDisconnected("the caller has hung up"))

    def cut(self, why: MesError) -> None:
        """End the exchange for this reason, unless it has ended. Any thread may call this."""
        if self._over is None:
            self._over = why
        self._shut_down()

    def take(self, line: RuntimeConnection) -> None:
        """Use this connection from here on."""
        with line.lock:
            line.exchange = self
        self._line, self._sock = line, line.sock
        self.connected = True
        if self._over is not None:
            raise ExchangeCancelled

    def begin_answer(self, head: RuntimeHTTPResponse) -> None:
        """The first byte is there."""
        self._head = head

    def pieces(self, *, at_most: float = math.inf) -> Iterator[bytes]:
        """The body as it arrives: each piece is all that is there of it by then.

        Raises RuntimeReplyInvalid where it has more bytes than `at_most`.
        """
        assert self.answer is not None
        arrivals = self._chunks() if self.answer.chunked else self._plain()
        for piece in arrivals:
            at_most -= len(piece)
            if at_most < 0:
                raise RuntimeReplyInvalid("the runtime sent more than an answer may hold")
            yield piece
        assert self._head is not None
        self._head.close()
        self.answer.release_conn()

    def _plain(self) -> Iterator[bytes]:
        assert self.answer is not None
        return iter(partial(self.answer.read1, _READ_BYTES), b"")

    def _chunks(self) -> Iterator[bytes]:
        # From the socket itself: what a buffer holds, epoll does not see.
        assert self._head is not None
        assert self._sock is not None
        # Some of the body may have come with the head.
        return decode_chunks(self._head.fp.read1(), partial(self._sock.recv, _READ_BYTES))

    def finish(self, pieces: Iterator[bytes]) -> None:
        """Read the end of an answer known already, so that the connection can be used again."""
        if self._sock is None or self.answer is None or self.answer.connection is None:
            return  # that was the end, and the connection may be serving others by now
        self._sock.settimeout(_DRAIN_SECONDS)
        try:
            for _ in itertools.islice(pieces, 3):
                pass
        except (OSError, HTTPError, MesError):
            pass  # this connection will be closed

    def _shut_down(self) -> None:
        line, sock = self._line, self._sock
        if line is None or sock is None:
            return
        with line.lock:
            # By now the connection may be serving somebody else's exchange.
            if line.exchange is self:
                _shut_down(sock)

    def _late(self) -> MesError:
        return self._operation.late(
            f"the runtime did not finish the {self._operation.name} in time"
        )

    def _says_all(self, error: BaseException) -> bool:
        return isinstance(error, MesError) and self._over is None and self.remaining_seconds > 0

    def _meaning(self, error: BaseException) -> MesError:
        over, self._over = self._over, None
        if over is not None:
            return over
        if self.remaining_seconds <= 0:
            return self._late()
        if not self.connected:
            return RuntimeUnavailable(f"the runtime at {self._where} cannot be reached")
        if _is_nonsense(error):
            return RuntimeReplyInvalid("the runtime does not speak HTTP as it should")
        return self._operation.broken(f"the runtime broke off the {self._operation.name}")


def _shut_down(sock: socket.socket) -> None:
    try:
        # Not the TLS socket's own method, which takes the TLS state from under a reader.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # the other side, or the reader, was quicker


def _is_nonsense(error: BaseException | None) -> bool:
    """Not a lost connection, but something that is not HTTP."""
    if error is None:
        return False
    if isinstance(error, (InvalidChunkLength, InvalidHeader)):
        return True
    if isinstance(error, http.client.HTTPException):
        return not isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead))
    return _is_nonsense(error.__cause__ or error.__context__)
