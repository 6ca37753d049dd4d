"""The keeper: one worker does the chores for all, until it ends or is retired."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mes.scheduling.coordinator import Coordinator
from mes.scheduling.file_lock import InstanceLock
from mes.scheduling.reconciler import Reconciler
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.workers import WorkerProcess, is_worker_alive

log = logging.getLogger(__name__)

_CHORES_EVERY_SECONDS = 0.25
# A look at a runtime that says nothing takes 5 s.
_STOPS_WITHIN_SECONDS = 10.0


class Leader:
    """A thread in every worker; in one of them it has much to do.

    It voids what dead workers owned, lets the policy look at the clock, looks after the state
    directory, and runs the errands that concern the runtime.
    """

    def __init__(
        self,
        directory: Path,
        *,
        coordinator: Coordinator,
        worker: WorkerProcess,
        reconciler: Reconciler,
        runtime_status: RuntimeStatusFile,
        instance_lock: InstanceLock,
    ) -> None:
        self._directory = directory
        self._instance_lock = instance_lock
        self._master = os.getppid()
        self._coordinator = coordinator
        self._worker = worker
        self._reconciler = reconciler
        self._runtime_status = runtime_status
        self._is_keeper = False
        self._released: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mes-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Is an errand still under way?"""
        return self._reconciler.open_exchanges

    def retire(self) -> None:
        """Begin no further round; another worker takes over. Errands under way go on."""
        self._stopping.set()

    def stop(self) -> None:
        """Finish the round and stop."""
        self.retire()
        self._thread.join(_STOPS_WITHIN_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._is_keeper = self._is_keeper or self._runtime_status.become_leader()
                if self._is_keeper:
                    self._run_once()
                else:
                    with suppress(OSError):  # the keeper finds it out and says so
                        self._coordinator.check()
                        self._worker.repair_wakeup_pipe()
            except Exception:
                # A keeper that dies of one bad round would leave all workers without chores.
                log.exception("leader_failed")
            self._stopping.wait(_CHORES_EVERY_SECONDS)
        self._runtime_status.step_down()
        self._instance_lock.let_go()

    def _run_once(self) -> None:
        self._release_dead_workers()
        if self._coordinator.read().tickets:
            with self._coordinator.transaction():
                pass  # the policy looks at the clock: somebody's patience may be over
        self._look_after_directory()
        self._reconciler.run()

    def _release_dead_workers(self) -> None:
        known = self._coordinator.read().owners() | set(self._worker.others())
        dead = [worker for worker in known - self._released if not is_worker_alive(worker)]
        if not dead:
            return
        log.warning("workers_died", extra={"workers": dead})
        with self._coordinator.transaction() as transaction:
            for worker in dead:
                transaction.state.release_dead_worker(worker, transaction.now)
        for worker in dead:
            try:
                self._worker.remove_files(worker)
            except OSError:
                self._released.add(worker)  # what lies about of it is no news

    def _look_after_directory(self) -> None:
        """Keep what others look for in it in its place, and say so once where that fails."""
        try:
            self._worker.repair_wakeup_pipe()
            if os.getppid() == self._master:  # or the lock would be in our next master's way
                self._instance_lock.keep()
            self._coordinator.check()
            self._coordinator.save()
            problem = ""
        except OSError as exc:
            problem = f"{self._directory} cannot be written ({exc.strerror})"
        runtime_status = self._runtime_status.current()
        if problem != runtime_status.state_dir:
            event = "state_dir_unusable" if problem else "state_dir_usable"
            log.warning(event, extra={"problem": problem or None})
            self._runtime_status.write(replace(runtime_status, state_dir=problem))
