"""The gunicorn worker: gthread, in which a slow client holds up nobody else.

Gthread gives a thread to each new connection and to each request that has begun to arrive, waits
in its main loop for up to 2 s until a client closes its side, and accepts connections while all its
threads are taken: some slow clients would silence `/health`. Here the poller does the waiting. A
request gets a thread once it has arrived, or of a large one the head; few threads at a time wait
for large bodies; and a worker without a free thread leaves new connections to the others.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ
from threading import BoundedSemaphore
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn

from mes.server.ending import EndingWorker
from mes.server.gunicorn_interface import require_expected_gunicorn
from mes.server.reader import Reader, TooSlow
from mes.server.refusals import refuse

log = logging.getLogger(__name__)

_ARRIVAL_SECONDS = 10.0
_BODY_SECONDS = 30.0
# Beside the threads for requests that have arrived, so that those never lack one.
_BODY_THREADS = 32
# So much of a body that nobody wanted is thrown away; behind more of it the connection ends.
_UNWANTED_BYTES = 64 * 1024
_LINGER_SECONDS = 2.0


class Worker(EndingWorker):
    """Threads are for requests that have arrived."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads = self.cfg.threads + _BODY_THREADS
        self._busy_threads = 0
        self._body_waits = BoundedSemaphore(_BODY_THREADS)
        # Until when a request must be there; the first to be late comes first.
        self._arriving: dict[TConn, float] = {}
        self._lingering: deque[TConn] = deque()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        require_expected_gunicorn()
        if cfg.is_ssl:
            raise SystemExit("MES does not start:\ncertfile: TLS is the proxy's part; leave it out")

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads)

    def set_accept_enabled(self, enabled: bool) -> None:
        # The main loop asks for this in each round, so a thread that comes free is soon of use.
        super().set_accept_enabled(enabled and self._busy_threads < self._threads)

    def accept(self, listener: socket.socket) -> None:
        try:
            super().accept(listener)
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # Gunicorn would let the worker die, and with it all that it runs.
            log.warning("no_descriptor_left", extra={"connections": self.nr_conns})
            self._make_room()
            time.sleep(0.01)  # where nothing could be ended, this would come again at once

    def enqueue_req(self, conn: TConn) -> None:
        """See in the next request, on a connection that is new or was kept alive."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader = Reader(conn.sock, self._body_waits)
        conn.sock.setblocking(False)
        self._arriving[conn] = time.monotonic() + _ARRIVAL_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._see_in, conn))
        self._see_in(conn, conn.sock)

    def handle(self, conn: TConn) -> Any:
        conn.parser.unreader.deadline = time.monotonic() + _BODY_SECONDS
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        refuse(client, exc)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        self._busy_threads -= 1
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self._arriving and next(iter(self._arriving.values())) < now:
            self._dismiss(next(iter(self._arriving)), TooSlow())
        while self._lingering and self._lingering[0].timeout < now:
            self._let_go(self._lingering[0])
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # No thread waits for the rest of a body that nobody wanted.
        conn.parser.unreader.deadline = 0.0
        return keepalive and bool(conn.parser.finish_body(max_bytes=_UNWANTED_BYTES))

    def cap_arrivals(self, deadline: float) -> None:
        """Let no request take longer than until then to arrive."""
        self._arriving = {conn: min(by, deadline) for conn, by in self._arriving.items()}

    def _see_in(self, conn: TConn, _: socket.socket) -> None:
        """A request gets a thread; what can be none is sent away."""
        try:
            if conn.parser.unreader.gather():
                self._end_arrival(conn)
                self._give_thread(conn)
        except ParseException as exc:
            self._dismiss(conn, exc)
        except OSError:
            self._drop(conn)

    def _give_thread(self, conn: TConn) -> None:
        self._busy_threads += 1
        super().enqueue_req(conn)
        if self._busy_threads >= self._threads:
            self.set_accept_enabled(False)

    def _make_room(self) -> None:
        """End the connection that has taken longest; failing that, those kept alive."""
        if self._arriving:
            self._drop(next(iter(self._arriving)))
        else:
            self.murder_keepalived(force=True)

    def _dismiss(self, conn: TConn, exc: Exception) -> None:
        if conn.parser.unreader.has_begun:
            self._end_arrival(conn)
            refuse(conn.sock, exc)
            self._linger(conn)
        else:
            self._drop(conn)  # an answer would be taken for that to its first request

    def _drop(self, conn: TConn) -> None:
        self._end_arrival(conn)
        self.nr_conns -= 1
        conn.close()

    def _end_arrival(self, conn: TConn) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)

    def _linger(self, conn: TConn) -> None:
        """Say that this was all, and close once the client has closed (RFC 9112, 9.6)."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
        except OSError:  # the client has gone already
            self.nr_conns -= 1
            conn.close()
            return
        conn.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: TConn, sock: socket.socket) -> None:
        try:
            # What the client still sends is thrown away; left unread it would reset our answer.
            if sock.recv(65536):
                return
        except OSError:
            pass
        self._let_go(conn)

    def _let_go(self, conn: TConn) -> None:
        self._lingering.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()
