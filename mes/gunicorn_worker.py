"""The gunicorn worker: gthread, in which slow clients hold up nobody, and which ends in good order.

Gthread gives each new connection a thread for 5 s to send its first byte in, waits in its main loop
for up to 2 s until a client closes its side, and accepts connections while all its threads are
taken: with some slow clients `/health` would take seconds. Here the poller does the waiting, and a
worker without a free thread leaves new connections to the others.

A worker that is told to end because another takes its place (SIGHUP) finishes all it has taken on,
however long that takes. If the service ends, it refuses who waits and who comes.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from mes.gunicorn_master import shared

_LINGER_SECONDS = 2.0


class Worker(ThreadWorker):
    """Threads are for requests that have begun to arrive."""

    alive: bool
    caught_in_fork: queue.SimpleQueue[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lingering: deque[TConn] = deque()
        self._busy_threads = 0
        self._listening = True

    def init_signals(self) -> None:
        super().init_signals()
        # Until now the master's handlers were in force here, and only noted what they were told.
        told = set()
        while not self.caught_in_fork.empty():
            told.add(self.caught_in_fork.get())
        if signal.SIGTERM in told or shared.stopping:
            self.alive = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # Wakes the main loop also if the service ends while this worker finishes its requests.
        self.method_queue.defer(int)

    def run(self) -> None:
        super().run()
        while self._services.keeper.busy and not self._service_ends:
            self.notify()
            time.sleep(0.1)
        self._services.close()

    @property
    def _services(self) -> Any:
        return self.wsgi.extensions["mes"]

    @property
    def _service_ends(self) -> bool:
        return bool(shared.stopping) or os.getppid() != self.ppid

    def _wind_up(self) -> None:
        self._services.retire()
        if self._service_ends and self._listening:
            self._listening = False
            self.set_accept_enabled(False)
            self._services.shut_down()
            self._take_in_and_close_the_door()

    def _take_in_and_close_the_door(self) -> None:
        """Accept who has connected already, to be refused with words; then let nobody connect."""
        for listener in self.sockets:
            before = -1
            while before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            listener.close()
        self._cap_pending(time.monotonic() + _LINGER_SECONDS)

    def set_accept_enabled(self, enabled: bool) -> None:
        # The main loop asks for this in each round, so a thread that comes free is soon of use.
        super().set_accept_enabled(enabled and self._busy_threads < self.cfg.threads)

    def enqueue_req(self, conn: TConn) -> None:
        if conn.initialized or conn.data_ready:
            self._busy_threads += 1
            super().enqueue_req(conn)
            if self._busy_threads >= self.cfg.threads:
                self.set_accept_enabled(False)
            return
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        self._busy_threads -= 1
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self._lingering and self._lingering[0].timeout < now:
            self._let_go(self._lingering[0])
        if not self.alive:
            self._wind_up()

    def _cap_keepalive(self, deadline: float) -> None:
        # The main loop calls this at its end, before it looks how long requests may still run.
        self.alive = False
        if not self._service_ends:
            self.cfg.set("graceful_timeout", self._services.settings.longest_request_seconds)
        self._wind_up()
        super()._cap_keepalive(deadline)
        self._cap_pending(deadline)

    def _cap_pending(self, deadline: float) -> None:
        # Those that never sent anything would hold up the stop as long as a request may.
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

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
