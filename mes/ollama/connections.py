"""HTTP/1.1 connections to the runtime: pooled, cancellable, read straight from the socket."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException, IncompleteRead
from typing import Any, Protocol

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool
from urllib3.util import Url


class ConnectionUser(Protocol):
    """The exchange that a connection serves at the moment."""

    reused_connection: bool
    needs_fresh_connection: bool

    @property
    def socket_timeout_seconds(self) -> float:
        """Return how long the socket may be silent."""

    def use_connection(self, connection: RuntimeConnection) -> None:
        """Send the request on this connection; raise to abort if the exchange was cancelled."""

    def begin_response(self, response: RuntimeHTTPResponse) -> None:
        """Note that the first byte of the response has arrived."""


class _ThreadLocal(threading.local):
    exchange: ConnectionUser | None = None


# urllib3 passes a request to a connection without a reference to its exchange.
this_thread = _ThreadLocal()


class RuntimeHTTPResponse(http.client.HTTPResponse):
    """A response that reports its first byte and skips all interim responses, not only 100."""

    def begin(self) -> None:
        if self.fp.peek(1) and this_thread.exchange is not None:
            this_thread.exchange.begin_response(self)
        super().begin()
        while 102 <= self.status < 200:
            self.headers = None  # type: ignore[assignment]  # so that begin() reads another head
            super().begin()


class RuntimeConnection(HTTPConnection):
    """A connection that knows the exchange it serves.

    With the connections of urllib3 alone, an exchange could not be ended before its first byte,
    neither by its deadline nor by a client that disconnects, and a request on a connection that the
    runtime has just closed would fail. It saves no CPU. `exchange` is guarded by `lock`.
    """

    response_class = RuntimeHTTPResponse

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()
        self.exchange: ConnectionUser | None = None

    def connect(self) -> None:
        super().connect()
        exchange = this_thread.exchange
        assert exchange is not None
        self.sock.settimeout(exchange.socket_timeout_seconds)
        exchange.reused_connection = False
        exchange.use_connection(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = this_thread.exchange
        assert exchange is not None
        if exchange.needs_fresh_connection and exchange.reused_connection:
            self.close()
        if not self.is_closed:
            self.timeout = exchange.socket_timeout_seconds
            exchange.use_connection(self)
        super().request(*args, **kwargs)


class _TlsRuntimeConnection(RuntimeConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = RuntimeConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsRuntimeConnection


class RuntimeAdapter(HTTPAdapter):
    """A transport adapter of `requests` that uses `RuntimeConnection`.

    Requests are prepared once and sent through the adapter without a session, which saves 14 to
    16 % of the CPU of a request. It keeps no cookies, follows no redirects, and ignores proxies,
    netrc files and certificates of the environment. The hooks for the connection, the URL and the
    response, which `requests` documents for subclasses, spare the work for several hosts, proxies
    and cookies: another 7 % of the CPU of a request.
    """

    def __init__(self, *, pool_size: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=pool_size)
        self._pool: ConnectionPool | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> ConnectionPool:
        """Return the pool of the first request: all requests go to one host."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return the path: there is no proxy, which would need the whole URL."""
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Return a response with the status and the raw response, which is all that is read."""
        response = requests.Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def prepare_request(method: str, url: Url, path: str) -> requests.PreparedRequest:
    """Return a request without a body. Prepare it once: this takes longer than to send it."""
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    full_url = url._replace(path=(url.path or "").rstrip("/") + path).url
    return requests.Request(method, full_url, headers=headers).prepare()


def with_body(template: requests.PreparedRequest, body: dict[str, Any]) -> requests.PreparedRequest:
    """Return a copy of the request with this body, encoded as JSON."""
    request = template.copy()
    request.prepare_body(_encode_json(body), None)
    return request


def _encode_json(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # A client's schema may contain a number of more than 64 bits, which orjson refuses.
        return json.dumps(body, default=dict).encode()


# The head of a chunk begins with the line end after the chunk before it. Extensions are ignored.
_CHUNK_HEAD = re.compile(rb"\r\n([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")
_PARTIAL_CHUNK_HEAD = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]+[ \t]*(?:;[^\r\n]*)?\r?)?)?)?")
_MAX_CHUNK_HEAD_BYTES = 4096
_MAX_TRAILER_BYTES = 65536


class ChunkDecoder:
    """Decodes a body with chunked transfer encoding (RFC 9112, 7.1), one `read` at a time.

    http.client reads ahead into a buffer that `epoll` does not see, so that a stream in the pump
    (`StreamPump`) would stall with tokens in the buffer. This decoder reads from the socket itself.

    Args:
        received: the first bytes of the body, which were received together with its head.
        read: blocks for more bytes and returns them; empty at the end of the connection.
    """

    def __init__(self, received: bytes, read: Callable[[], bytes]) -> None:
        self._received = received
        self._read = read

    def __iter__(self) -> Iterator[bytes]:
        """Yield the part of the body in each read, which may be empty.

        Raises:
            IncompleteRead: the connection ended within the body.
            HTTPException: the bytes are not chunks, or more bytes follow the last chunk.
        """
        data, left = b"\r\n" + self._received, 0
        while True:
            pieces: list[bytes] = []
            at, ended = 0, False
            while at < len(data) and not ended:
                if left:
                    piece = data[at : at + left]
                    pieces.append(piece)
                    at += len(piece)
                    left -= len(piece)
                elif head := _CHUNK_HEAD.match(data, at):
                    at, left = head.end(), int(head[1], 16)
                    ended = not left
                else:
                    break
            yield b"".join(pieces)
            if ended:
                return (yield from self._skip_trailer(data[at:]))
            rest = data[at:]
            if rest not in (b"", b"\r\n"):
                _check_partial_head(rest)
            data = rest + self._read_more()

    def _read_more(self) -> bytes:
        arrived = self._read()
        if not arrived:
            raise IncompleteRead(b"")
        return arrived

    def _skip_trailer(self, rest: bytes) -> Iterator[bytes]:
        trailer = b"\r\n" + rest
        while b"\r\n\r\n" not in trailer:
            arrived = self._read_more()
            if len(trailer) > _MAX_TRAILER_BYTES:
                raise IncompleteRead(b"")
            trailer += arrived
            yield b""
        if trailer.index(b"\r\n\r\n") + 4 < len(trailer):
            raise HTTPException("more bytes follow the last chunk")


def _check_partial_head(start: bytes) -> None:
    """Raise HTTPException unless more bytes could complete the head of a chunk."""
    if len(start) > _MAX_CHUNK_HEAD_BYTES or not _PARTIAL_CHUNK_HEAD.fullmatch(start):
        raise HTTPException("the head of a chunk is invalid")
