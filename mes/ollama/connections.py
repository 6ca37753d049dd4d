"""Connections to the runtime, kept open, each of which knows the exchange it serves."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Url

if TYPE_CHECKING:
    from mes.ollama.exchange import Exchange


class _ThreadLocal(threading.local):
    exchange: Exchange | None = None


# urllib3 hands a request to its connection without a word on whose it is.
this_thread = _ThreadLocal()


class RuntimeHTTPResponse(http.client.HTTPResponse):
    """An answer that notes its first byte and passes over all interim responses, not only 100."""

    def begin(self) -> None:
        if self.fp.peek(1) and this_thread.exchange is not None:
            this_thread.exchange.begin_answer(self)
        super().begin()
        while 102 <= self.status < 200:
            self.headers = None  # type: ignore[assignment]  # begin() then begins anew
            super().begin()


class RuntimeConnection(HTTPConnection):
    """A connection that knows the exchange it serves."""

    response_class = RuntimeHTTPResponse

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()
        self.exchange: Exchange | None = None
        self._held_back: list[Any] | None = None

    def connect(self) -> None:
        super().connect()
        exchange = this_thread.exchange
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
        exchange = this_thread.exchange
        assert exchange is not None
        if exchange.wants_fresh_connection and exchange.reused:
            self.close()
        if not self.is_closed:
            self.timeout = exchange.patience_seconds
            exchange.take(self)


class _TlsRuntimeConnection(RuntimeConnection, HTTPSConnection):
    pass


def connection_pool(url: Url, *, size: int) -> HTTPConnectionPool:
    """The connections to one host, kept open between requests."""
    kind, line = (
        (HTTPSConnectionPool, _TlsRuntimeConnection)
        if url.scheme == "https"
        else (HTTPConnectionPool, RuntimeConnection)
    )
    connections = kind(url.host or "", url.port, maxsize=size)
    connections.ConnectionCls = line
    return connections


class RuntimeAdapter(HTTPAdapter):
    """An adapter with one pool, which spares a request all that serves many hosts.

    It keeps no cookies and knows no proxies, whatever the environment says.
    """

    def __init__(self, connections: HTTPConnectionPool) -> None:
        super().__init__()
        self._connections = connections

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._connections

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        return response
