"""How a gunicorn worker ends: if it cannot start, after a reload, or when the service stops.

A worker that a reload (SIGHUP) replaces finishes all requests it has accepted, however long that
takes. When the service stops, requests that wait or arrive are refused.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import time
from typing import Any

from mes.server.hooks import CONFIGURATION_ERRORS, stopping, worker_started
from mes.server.polling_worker import PollingWorker

log = logging.getLogger(__name__)

# Before another worker is forked in place of one that could not start.
_START_PAUSE_SECONDS = 2.0
_LAST_ARRIVALS_SECONDS = 2.0


class GracefulWorker(PollingWorker):
    """A worker that refuses waiting requests when the service stops."""

    alive: bool
    caught_in_fork: queue.SimpleQueue[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listening = True

    def init_signals(self) -> None:
        super().init_signals()
        # Signals that arrived during the fork went to the master's handlers, which queued them.
        received = set()
        while not self.caught_in_fork.empty():
            received.add(self.caught_in_fork.get())
        if signal.SIGTERM in received or stopping:
            self.alive = False

    def load_wsgi(self) -> None:
        """Create the application. If that fails, end this worker, but not the service."""
        try:
            super().load_wsgi()
        except Exception as exc:
            if not worker_started:
                raise
            # After gunicorn's own exit code the master would end all workers.
            is_bug = not isinstance(exc, CONFIGURATION_ERRORS)
            log.error("worker_not_started", extra={"problem": str(exc)}, exc_info=is_bug)
            self._pause()
            raise SystemExit(1) from None

    def _pause(self) -> None:
        until = time.monotonic() + _START_PAUSE_SECONDS
        while self.alive and time.monotonic() < until:
            self.notify()
            time.sleep(0.1)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # gunicorn wakes the main loop at the first SIGTERM only; a reload may have sent that one.
        self.method_queue.defer(int)

    def run(self) -> None:
        super().run()
        while self._services.leader.is_busy and not self._service_is_stopping:
            self.notify()
            time.sleep(0.1)
        self._services.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        if not self.alive:
            self._begin_shutdown()

    def _cap_keepalive(self, deadline: float) -> None:
        # gunicorn calls this when the main loop ends, just before it reads graceful_timeout.
        self.alive = False
        if not self._service_is_stopping:
            self.cfg.set("graceful_timeout", self._services.settings.longest_request_seconds)
        self._begin_shutdown()
        super()._cap_keepalive(deadline)
        # Connections without a request would otherwise delay the stop by that timeout.
        self.limit_arrival_times(deadline)

    @property
    def _services(self) -> Any:
        return self.wsgi.extensions["mes"]

    @property
    def _service_is_stopping(self) -> bool:
        return bool(stopping) or os.getppid() != self.ppid

    def _begin_shutdown(self) -> None:
        self._services.retire()
        if self._service_is_stopping and self._listening:
            self._listening = False
            self.set_accept_enabled(False)
            self._services.shut_down()
            self._accept_backlog_and_close()

    def _accept_backlog_and_close(self) -> None:
        """Accept what is in the backlog, so that it gets an answer, and close the listeners."""
        for listener in self.sockets:
            connections_before = -1
            while connections_before != self.nr_conns:
                connections_before = self.nr_conns
                self.accept(listener)
            listener.close()
        self.limit_arrival_times(time.monotonic() + _LAST_ARRIVALS_SECONDS)
