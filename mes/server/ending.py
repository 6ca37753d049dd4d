"""How a gunicorn worker ends: in good order, whether another takes its place or the service ends.

A worker whose place another takes (SIGHUP) finishes all it has taken on, however long that takes.
If the service ends, it refuses who waits and who comes.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from mes.server.master import stopping

_LAST_ARRIVALS_SECONDS = 2.0


class EndingWorker(ThreadWorker):
    """Gthread, but for its end."""

    alive: bool
    caught_in_fork: queue.SimpleQueue[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listening = True

    def init_signals(self) -> None:
        super().init_signals()
        # Until now the master's handlers were in force here, and only noted what they were told.
        told = set()
        while not self.caught_in_fork.empty():
            told.add(self.caught_in_fork.get())
        if signal.SIGTERM in told or stopping:
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

    def murder_pending(self) -> None:
        super().murder_pending()
        if not self.alive:
            self._wind_up()

    def cap_arrivals(self, deadline: float) -> None:
        """Let no request take longer than until then to arrive."""
        raise NotImplementedError

    def _cap_keepalive(self, deadline: float) -> None:
        # The main loop calls this at its end, before it looks how long requests may still run.
        self.alive = False
        if not self._service_ends:
            self.cfg.set("graceful_timeout", self._services.settings.longest_request_seconds)
        self._wind_up()
        super()._cap_keepalive(deadline)
        # Those that never sent anything would hold up the stop as long as a request may.
        self.cap_arrivals(deadline)

    @property
    def _services(self) -> Any:
        return self.wsgi.extensions["mes"]

    @property
    def _service_ends(self) -> bool:
        return bool(stopping) or os.getppid() != self.ppid

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
        self.cap_arrivals(time.monotonic() + _LAST_ARRIVALS_SECONDS)
