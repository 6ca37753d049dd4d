"""The keeper: one worker does the chores for all, whichever holds `STATE_DIR/keeper.lock`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from mes.scheduling.board import Board
from mes.scheduling.errands import Errands
from mes.scheduling.files import FileLock
from mes.scheduling.worker import Worker

log = logging.getLogger(__name__)

_CHORES_EVERY_SECONDS = 0.25


class Keeper:
    """A thread in every worker; in one of them it has something to do.

    It voids what dead workers owned, lets the policy look at the clock, and runs the errands that
    concern the runtime.
    """

    def __init__(self, directory: Path, *, board: Board, worker: Worker, errands: Errands) -> None:
        self._lock = FileLock(directory / "keeper.lock")
        self._board = board
        self._worker = worker
        self._errands = errands
        self._is_keeper = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mes-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the round and stop."""
        self._stopping.set()
        self._thread.join()
        self._lock.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._is_keeper = self._is_keeper or self._lock.take_for_life()
                if self._is_keeper:
                    self._do_chores()
            except Exception:
                # A keeper that dies of one bad round would leave all workers without chores.
                log.exception("keeper_failed")
            self._stopping.wait(_CHORES_EVERY_SECONDS)

    def _do_chores(self) -> None:
        self._bury_the_dead()
        if self._board.read().tickets:
            with self._board.change():
                pass  # the policy looks at the clock: somebody's patience may be over
        self._errands.run()

    def _bury_the_dead(self) -> None:
        known = self._board.read().owners() | set(self._worker.others())
        dead = [worker for worker in known if not self._worker.is_alive(worker)]
        if not dead:
            return
        log.warning("workers_died", extra={"workers": dead})
        with self._board.change() as change:
            for worker in dead:
                change.state.bury(worker, change.now)
        for worker in dead:
            self._worker.sweep(worker)
