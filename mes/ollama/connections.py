"""Connections to the runtime, kept open, each of which knows the exchange it serves."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

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

    def connect(self) -> None:
        super().connect()
        exchange = this_thread.exchange
        assert exchange is not None
        self.sock.settimeout(exchange.patience_seconds)
        exchange.reused = False
        exchange.take(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = this_thread.exchange
        assert exchange is not None
        if exchange.wants_fresh_connection and exchange.reused:
            self.close()
        if not self.is_closed:
            self.timeout = exchange.patience_seconds
            exchange.take(self)
        super().request(*args, **kwargs)


class _TlsRuntimeConnection(RuntimeConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = RuntimeConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsRuntimeConnection


class RuntimeAdapter(HTTPAdapter):
    """A transport adapter of `requests` whose connections know the exchanges they serve.

    Requests are sent through it without a session: no cookies are kept, no redirect is followed,
    and no proxy, netrc or certificate of the environment counts.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
