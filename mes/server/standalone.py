"""A server in one process: gunicorn's thread worker without its master, for a runtime.

As in the workers of MES, a request gets a thread once it has arrived (of a large one, the head), so
requests that arrive slowly or never occupy no thread.
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ
from threading import BoundedSemaphore
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from mes.server.connection import RequestReader, RequestTooSlow, send_refusal
from mes.server.gunicorn_interface import require_expected_gunicorn

_ARRIVAL_SECONDS = 10.0
_BODY_SECONDS = 30.0
# In addition to the threads for requests that have arrived, so that those always have one.
_BODY_THREADS = 16
_IDLE_CONNECTIONS = 1000
_DISCARDED_BODY_BYTES = 64 * 1024


def serve(application: Any, listener: socket.socket, *, threads: int, max_body_bytes: int) -> None:
    """Serve a WSGI application until an exception, such as SystemExit, ends the main thread.

    Args:
        threads: the number of requests that are served at a time.
        max_body_bytes: the maximum size of a chunk; the application limits the whole body.
    """
    require_expected_gunicorn()
    cfg = Config()
    cfg.set("threads", threads)
    cfg.set("worker_connections", threads + _IDLE_CONNECTIONS)
    cfg.set("keepalive", 75)
    cfg.set("loglevel", "warning")
    # An answer is sent in two pieces, head and body. Connections inherit the option.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    worker = _Worker(0, os.getppid(), [listener], None, 0, cfg, Logger(cfg))
    worker.wsgi, worker.max_body_bytes = application, max_body_bytes
    worker.init_process()


class _Worker(ThreadWorker):
    max_body_bytes: int

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._body_waits = BoundedSemaphore(_BODY_THREADS)
        # The deadline of each request that is still arriving, earliest first.
        self._arriving: dict[TConn, float] = {}

    def init_signals(self) -> None:
        """Leave signals to the program."""

    def load_wsgi(self) -> None:
        """Do nothing: `serve` has set the application."""

    def is_parent_alive(self) -> bool:
        return True  # there is no master

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.cfg.threads + _BODY_THREADS)

    def enqueue_req(self, conn: TConn) -> None:
        """Wait for the next request of a connection, in the poller."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = RequestReader(
                conn.sock, self._body_waits, max_body_bytes=self.max_body_bytes
            )
        conn.sock.setblocking(False)
        self._arriving[conn] = time.monotonic() + _ARRIVAL_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        self._on_readable(conn, conn.sock)

    def handle(self, conn: TConn) -> Any:
        conn.parser.unreader.deadline = time.monotonic() + _BODY_SECONDS
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        send_refusal(client, exc)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
        else:
            # The inherited method would wait in the main thread until the client closes too.
            self._close(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self._arriving and next(iter(self._arriving.values())) < now:
            self._refuse(next(iter(self._arriving)), RequestTooSlow())
        if self._arriving and self.nr_conns >= self.worker_connections:
            # Make room: close the connection that has been arriving longest.
            self._stop_arrival(conn := next(iter(self._arriving)))
            self._close(conn)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # No thread waits for the rest of a body that the application has not read.
        conn.parser.unreader.deadline = 0.0
        return keepalive and bool(conn.parser.finish_body(max_bytes=_DISCARDED_BODY_BYTES))

    def _on_readable(self, conn: TConn, _: socket.socket) -> None:
        """Read from a connection; give a complete request a thread, and refuse an invalid one."""
        try:
            if conn.parser.unreader.gather():
                self._stop_arrival(conn)
                super().enqueue_req(conn)
        except ParseException as exc:
            self._refuse(conn, exc)
        except OSError:
            self._stop_arrival(conn)
            self._close(conn)

    def _refuse(self, conn: TConn, exc: Exception) -> None:
        self._stop_arrival(conn)
        if conn.parser.unreader.has_begun:
            send_refusal(conn.sock, exc)
        self._close(conn)

    def _stop_arrival(self, conn: TConn) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()
