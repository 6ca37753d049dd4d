"""One exchange with the runtime over HTTP, which another thread can cancel at any moment."""

from __future__ import annotations

import http.client
import itertools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, InvalidChunkLength, InvalidHeader

from mes.errors import ClientDisconnected, MesError, RuntimeReplyInvalid, RuntimeUnavailable
from mes.event_loop import EventLoop
from mes.ollama.connections import (
    ChunkDecoder,
    RuntimeConnection,
    RuntimeHTTPResponse,
    this_thread,
)

# Its warnings quote lines that it cannot parse, which may be the output of a model.
logging.getLogger("urllib3").setLevel(logging.ERROR)

# The event loop ends an exchange at its deadline. The socket's timeout matters only if it fails.
_SOCKET_TIMEOUT_MARGIN_SECONDS = 1.0

# Everything from one read is sent to the client at once, so it must fit into a socket's buffer.
_READ_BYTES = 16384

# Waiting this long for the end of a finished response is cheaper than a new connection.
_DRAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Operation:
    """The purpose of an exchange, and its errors.

    Args:
        name: noun in error details.
        timeout_error: the deadline has passed.
        broken_error: the connection was lost.
    """

    name: str
    timeout_error: type[MesError]
    broken_error: type[MesError]


class ExchangeCancelled(Exception):
    """The exchange was cancelled before its connection was used."""


_FAILURES = (OSError, HTTPError, http.client.HTTPException, MesError, ExchangeCancelled)


class OpenExchanges:
    """The exchanges that have not ended yet. All of them can be cancelled together."""

    def __init__(self) -> None:
        self._exchanges: set[Exchange] = set()
        self._make_error: Callable[[], MesError] | None = None

    def add(self, exchange: Exchange) -> None:
        self._exchanges.add(exchange)
        # Checked after the addition: `cancel_all` in another thread either finds the exchange in
        # the set, or its error is found here.
        if self._make_error is not None:
            exchange.cancel(self._make_error())

    def discard(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)

    def cancel_all(self, make_error: Callable[[], MesError]) -> None:
        """Cancel all exchanges, present and future, each with an error of its own."""
        self._make_error = make_error
        for exchange in list(self._exchanges):
            exchange.cancel(make_error())


class Exchange:
    """A request and its response. Every failure within the `with` block becomes a MesError.

    At the deadline, and when it is cancelled, the socket is shut down, so that a blocked reader
    wakes up wherever it is. The connection is reused only after a complete and valid response.
    """

    def __init__(
        self,
        operation: Operation,
        *,
        address: str,
        event_loop: EventLoop,
        deadline: float,
        open_exchanges: OpenExchanges,
    ) -> None:
        self.reused_connection = True  # until a connection is opened for this exchange
        self.connected = False
        self.needs_fresh_connection = False
        self.response: HTTPResponse | None = None
        self._operation = operation
        self._address = address
        self._event_loop = event_loop
        self._deadline = deadline
        self._open_exchanges = open_exchanges
        self._cancelled_with: MesError | None = None
        self._connection: RuntimeConnection | None = None
        self._sock: socket.socket | None = None
        self._http_response: RuntimeHTTPResponse | None = None

    def __enter__(self) -> Self:
        if self.remaining_seconds <= 0:
            raise self._timeout_error()
        self._timer = self._event_loop.call_at(
            self._deadline, lambda: self.cancel(self._timeout_error())
        )
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
        if self.response is not None:
            self.response.close()  # does nothing after a complete response
            self.response.release_conn()
        self._sock = None
        if isinstance(error, _FAILURES) and not self._is_final(error):
            # Not bound to a name: the error refers to the frame it was raised in. With a reference
            # back, both and the model's output would stay in memory until the collector runs.
            raise self._translate(error) from error

    @property
    def remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def socket_timeout_seconds(self) -> float:
        return max(self.remaining_seconds, 0.0) + _SOCKET_TIMEOUT_MARGIN_SECONDS

    @property
    def hit_stale_connection(self) -> bool:
        """Return whether the runtime had closed a pooled connection before it got the request."""
        is_answered = self._http_response is not None
        is_cancelled = self._cancelled_with is not None
        return self.reused_connection and self.connected and not is_answered and not is_cancelled

    @property
    def readable_socket(self) -> socket.socket | None:
        """Return the socket that is readable exactly when the body has more; None if there is none.

        There is none with TLS, and with a body that is not chunked: both are read ahead into a
        buffer of this process.
        """
        assert self.response is not None
        is_unbuffered = self.response.chunked and type(self._sock) is socket.socket
        return self._sock if is_unbuffered else None

    def retry_on_fresh_connection(self) -> None:
        """Prepare to send the request again, on a new connection."""
        self.needs_fresh_connection = True
        self.connected = False

    def cancel_for_client(self) -> None:
        """Cancel the exchange because its client has disconnected. Thread-safe."""
        self.cancel(ClientDisconnected("the client has disconnected"))

    def cancel(self, error: MesError) -> None:
        """End the exchange with this error, unless it has ended. Thread-safe."""
        if self._cancelled_with is None:
            self._cancelled_with = error
        self._shut_down()

    def use_connection(self, connection: RuntimeConnection) -> None:
        """Use this connection; raise ExchangeCancelled if the exchange was cancelled before."""
        with connection.lock:
            connection.exchange = self
        self._connection, self._sock = connection, connection.sock
        self.connected = True
        if self._cancelled_with is not None:
            raise ExchangeCancelled

    def begin_response(self, response: RuntimeHTTPResponse) -> None:
        """Note that the first byte has arrived: the request must not be sent again."""
        self._http_response = response

    def iter_body(self, *, max_bytes: float = math.inf) -> Iterator[bytes]:
        """Yield the body in pieces, each with all that has arrived by then.

        Raises RuntimeReplyInvalid if the body is longer than `max_bytes`.
        """
        assert self.response is not None
        left = max_bytes
        for piece in self._iter_chunks() if self.response.chunked else self._iter_plain():
            left -= len(piece)
            if left < 0:
                raise RuntimeReplyInvalid(f"the runtime sent more than {max_bytes} bytes")
            yield piece
        if self._http_response is not None:
            self._http_response.close()
        self.response.release_conn()

    def _iter_plain(self) -> Iterable[bytes]:
        assert self.response is not None
        return iter(partial(self.response.read1, _READ_BYTES), b"")

    def _iter_chunks(self) -> Iterable[bytes]:
        assert self._http_response is not None
        assert self._sock is not None
        # The buffer may contain the start of the body, received together with the head.
        received = self._http_response.fp.read1()
        return ChunkDecoder(received, partial(self._sock.recv, _READ_BYTES))

    def drain(self, body: Iterator[bytes]) -> None:
        """Read the end of a body whose content is complete, so that the connection is reused."""
        if self._sock is None or self.response is None or self.response.connection is None:
            return  # the end is read, and the connection may serve another exchange by now
        self._sock.settimeout(_DRAIN_SECONDS)
        try:
            for _ in itertools.islice(body, 3):
                pass
        except (OSError, HTTPError, MesError):
            pass  # this connection will be closed

    def _shut_down(self) -> None:
        connection, sock = self._connection, self._sock
        if connection is None or sock is None:
            return
        with connection.lock:
            # The connection may serve another exchange by now.
            if connection.exchange is self:
                _shut_down(sock)

    def _timeout_error(self) -> MesError:
        return self._operation.timeout_error(
            f"the runtime did not finish the {self._operation.name} in time"
        )

    def _is_final(self, error: BaseException) -> bool:
        is_in_time = self._cancelled_with is None and self.remaining_seconds > 0
        return isinstance(error, MesError) and is_in_time

    def _translate(self, error: BaseException) -> MesError:
        cancelled_with, self._cancelled_with = self._cancelled_with, None
        if cancelled_with is not None:
            return cancelled_with
        if self.remaining_seconds <= 0:
            return self._timeout_error()
        if not self.connected:
            return RuntimeUnavailable(f"the runtime at {self._address} cannot be reached")
        if _is_protocol_error(error):
            return RuntimeReplyInvalid("the runtime does not speak HTTP as it should")
        return self._operation.broken_error(f"the runtime broke off the {self._operation.name}")


def _shut_down(sock: socket.socket) -> None:
    try:
        # The TLS socket's own method would discard the TLS state while another thread reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already


def _is_protocol_error(error: BaseException | None) -> bool:
    """Return whether the cause is invalid HTTP, and not a lost connection."""
    if error is None:
        return False
    if isinstance(error, (InvalidChunkLength, InvalidHeader)):
        return True
    if isinstance(error, http.client.HTTPException):
        return not isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead))
    return _is_protocol_error(error.__cause__ or error.__context__)
