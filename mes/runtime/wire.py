"""One exchange with the runtime over HTTP, which another thread can cut off at any moment."""

from __future__ import annotations

import http.client
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidChunkLength, InvalidHeader
from urllib3.util import Url

from mes.errors import CallerGone, MesError, RuntimeReplyInvalid, RuntimeUnavailable
from mes.watch import Watch

# It quotes what it cannot read, which may be what a model has said. We tell of it ourselves.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# The watch cuts at the deadline; the socket's own timeout only counts if the watch should fail.
_BELT_SECONDS = 1.0

# The end of an answer that is known already is worth this long to save a new connection.
_TAIL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Errand:
    """What an exchange is for, and what it means if it ends too late or breaks off."""

    name: str
    late: type[MesError]
    broken: type[MesError]


class Cut(Exception):
    """The exchange was over before its connection could be used."""


class UnderWay:
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
        errand: Errand,
        *,
        where: str,
        watch: Watch,
        deadline: float,
        under_way: UnderWay,
    ) -> None:
        self.reused = True  # until a connection is made for it
        self.connected = False
        self.answered = False
        self.wants_fresh_connection = False
        self.answer: HTTPResponse | None = None
        self._errand = errand
        self._where = where
        self._watch = watch
        self._deadline = deadline
        self._under_way = under_way
        self._over: MesError | None = None
        self._line: _Line | None = None
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        if self.remaining_seconds <= 0:
            raise self._late()
        self._alarm = self._watch.at(self._deadline, lambda: self.cut(self._late()))
        _this_thread.exchange = self
        self._under_way.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alarm.call_off()
        self._under_way.discard(self)
        _this_thread.exchange = None
        if error is not None:
            self._shut_down()
        if self.answer is not None:
            self.answer.close()  # a whole answer has given its connection back by now
            self.answer.release_conn()
        self._sock = None
        if isinstance(error, (OSError, HTTPError, MesError, Cut)):
            self._explain(error)

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def patience_seconds(self) -> float:
        """How long the socket may be silent."""
        return max(self.remaining_seconds, 0.0) + _BELT_SECONDS

    @property
    def hit_a_stale_connection(self) -> bool:
        """The runtime had closed the connection between two requests, and nothing came of this."""
        return self.reused and self.connected and not self.answered and self._over is None

    def begin_again(self) -> None:
        """Ask once more, on a connection that nobody has used."""
        self.wants_fresh_connection = True
        self.connected = False

    def hang_up(self) -> None:
        """Nobody waits for the answer any more. Any thread may call this."""
        self.cut(CallerGone("the caller has hung up"))

    def cut(self, why: MesError) -> None:
        """End the exchange for this reason, unless it has ended. Any thread may call this."""
        if self._over is None:
            self._over = why
        self._shut_down()

    def take(self, line: _Line) -> None:
        """Use this connection from here on."""
        with line.lock:
            line.exchange = self
        self._line, self._sock = line, line.sock
        self.connected = True
        if self._over is not None:
            raise Cut

    def finish(self, chunks: Iterator[bytes]) -> None:
        """Read the end of an answer known already, so that the connection can be used again."""
        if self._sock is None or self.answer is None or self.answer.connection is None:
            return  # that was the end, and the connection may be serving others by now
        self._sock.settimeout(_TAIL_SECONDS)
        try:
            for _ in itertools.islice(chunks, 3):
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
        return self._errand.late(f"the runtime did not finish the {self._errand.name} in time")

    def _explain(self, error: BaseException) -> None:
        """Raise what the failure means, unless it says so itself."""
        if self._over is None and self.remaining_seconds <= 0:
            self._over = self._late()
        if self._over is not None:
            raise self._over from error
        if isinstance(error, MesError):
            return
        if not self.connected:
            raise RuntimeUnavailable(f"the runtime at {self._where} cannot be reached") from error
        if _is_nonsense(error):
            raise RuntimeReplyInvalid("the runtime does not speak HTTP as it should") from error
        raise self._errand.broken(f"the runtime broke off the {self._errand.name}") from error


class _ThisThread(threading.local):
    exchange: Exchange | None = None


# urllib3 hands a request to its connection without a word on whose it is.
_this_thread = _ThisThread()


class _Answer(http.client.HTTPResponse):
    """An answer that notes its first byte and passes over all interim responses, not only 100."""

    def begin(self) -> None:
        if self.fp.peek(1) and _this_thread.exchange is not None:
            _this_thread.exchange.answered = True
        super().begin()
        while 102 <= self.status < 200:
            self.headers = None  # type: ignore[assignment]  # begin() then begins anew
            super().begin()


class _Line(HTTPConnection):
    """A connection that knows the exchange it serves."""

    response_class = _Answer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()
        self.exchange: Exchange | None = None
        self._held_back: list[Any] | None = None

    def connect(self) -> None:
        super().connect()
        exchange = _this_thread.exchange
        assert exchange is not None
        self.sock.settimeout(exchange.patience_seconds)
        exchange.reused = False
        exchange.take(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._make_ready()
        self._held_back = []
        try:
            super().request(*args, **kwargs)
        finally:
            whole, self._held_back = b"".join(self._held_back), None
        self.send(whole)

    def send(self, data: Any) -> None:
        # Head and body in one packet: the runtime wakes once, and so do we.
        if self._held_back is None:
            super().send(data)
        else:
            self._held_back.append(data)

    def _make_ready(self) -> None:
        exchange = _this_thread.exchange
        assert exchange is not None
        if exchange.wants_fresh_connection and exchange.reused:
            self.close()
        if not self.is_closed:
            self.timeout = exchange.patience_seconds
            exchange.take(self)


class _TlsLine(_Line, HTTPSConnection):
    pass


def pool(url: Url, *, size: int) -> HTTPConnectionPool:
    """The connections to one host, kept open between requests."""
    kind, line = (
        (HTTPSConnectionPool, _TlsLine) if url.scheme == "https" else (HTTPConnectionPool, _Line)
    )
    connections = kind(url.host or "", url.port, maxsize=size)
    connections.ConnectionCls = line
    return connections


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
