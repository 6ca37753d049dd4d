"""The leader: one worker does the background work for all, until it ends or is retired."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mes.config.reloading_file import ReloadingFile
from mes.errors import StateDirFull, StateLocked
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.file_lock import InstanceLock
from mes.scheduling.reconciler import Reconciler
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.workers import WorkerProcess, is_worker_alive

log = logging.getLogger(__name__)

_ROUND_INTERVAL_SECONDS = 0.25
# A query to a runtime that does not answer takes 5 s.
_STOP_TIMEOUT_SECONDS = 10.0


class Leader:
    """A thread of every worker; the thread of one worker, the leader, does the background work.

    In each round the leader releases what dead workers own, lets the policy decide about requests
    whose patience may be over, maintains the state directory, and runs the reconciler.

    Args:
        directory: STATE_DIR.
        coordinator: Changes the shared state.
        worker: This worker.
        reconciler: Compares the registry with the runtime.
        runtime_status: The status file; the lock on it makes a worker the leader.
        instance_lock: The lock on the directory, which the leader takes again if it is lost.
        configuration: The files whose last valid texts are kept in the directory.
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
        configuration: Sequence[ReloadingFile[Any]] = (),
    ) -> None:
        self._directory = directory
        self._instance_lock = instance_lock
        self._configuration = configuration
        self._master = os.getppid()
        self._coordinator = coordinator
        self._worker = worker
        self._reconciler = reconciler
        self._runtime_status = runtime_status
        self._is_leader = False
        self._leader_is_late = False
        self._full_disk_problem = ""
        # Dead workers whose files could not be deleted; what they owned is released.
        self._released: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mes-leader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether an operation that this worker began as the leader still runs."""
        return self._reconciler.is_busy

    def retire(self) -> None:
        """Begin no further round; another worker takes over. Operations that run continue."""
        self._stopping.set()

    def stop(self) -> None:
        """Finish the round and stop."""
        self.retire()
        self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._is_leader = self._is_leader or self._runtime_status.become_leader()
                if self._is_leader:
                    self._run_round()
                else:
                    self._repair_own_files()
                    self._watch_leader()
            except Exception:
                # If this thread ended after one failed round, no worker would do the work.
                log.exception("leader_failed")
            self._stopping.wait(_ROUND_INTERVAL_SECONDS)
        self._runtime_status.step_down()
        self._instance_lock.close()

    def _repair_own_files(self) -> None:
        with suppress(OSError):  # the leader has the same problem and reports it
            self._coordinator.check()
            self._worker.repair_wakeup_pipe()

    def _watch_leader(self) -> None:
        """Log a warning when the leader no longer reports; it keeps its lock until it ends."""
        status = self._runtime_status.latest()
        is_late = status.seen_at > 0 and not status.is_fresh
        if is_late and not self._leader_is_late and (leader := self._runtime_status.leader):
            fields = {"holder": leader.pid, "holder_state": leader.state}
            log.warning("leader_unresponsive", extra=fields)
        self._leader_is_late = is_late

    def _run_round(self) -> None:
        # A problem of the last transactions is reported until a whole round succeeds, so that it
        # is logged once.
        try:
            # Where the state is locked, the directory and the runtime are looked after as usual.
            with suppress(StateLocked):
                self._release_dead_workers()
                self._settle()
            self._maintain_directory()
            with suppress(StateLocked):
                self._reconciler.run()
            self._full_disk_problem = ""
        except StateDirFull as exc:
            self._full_disk_problem = exc.detail
            self._maintain_directory()

    def _release_dead_workers(self) -> None:
        known = self._coordinator.read().owners() | set(self._worker.others())
        dead = [worker for worker in known - self._released if not is_worker_alive(worker)]
        if not dead:
            return
        with self._coordinator.transaction() as transaction:
            for worker in dead:
                transaction.state.release_dead_worker(worker, transaction.now)
        log.warning("workers_died", extra={"workers": dead})
        for worker in dead:
            try:
                self._worker.remove_files(worker)
            except OSError:
                self._released.add(worker)  # its files must not be reported in each round

    def _settle(self) -> None:
        """Let the policy decide at this time: the patience of a request may be over."""
        if self._coordinator.read().tickets:
            with self._coordinator.transaction():
                pass

    def _maintain_directory(self) -> None:
        """Repair the files of the directory. Log and report a problem when it begins or ends."""
        problem = self._repair_directory() or self._full_disk_problem
        runtime_status = self._runtime_status.current()
        if bool(problem) != bool(runtime_status.state_dir):
            event = "state_dir_unusable" if problem else "state_dir_usable"
            log.warning(event, extra={"problem": problem or None})
        if problem != runtime_status.state_dir:
            self._runtime_status.write(replace(runtime_status, state_dir=problem))

    def _repair_directory(self) -> str:
        """Return the problem of the directory, or an empty string."""
        try:
            self._worker.repair_wakeup_pipe()
            # After the master has ended, the lock would keep its successor from starting.
            if os.getppid() == self._master:
                self._instance_lock.try_acquire()
            self._coordinator.check()
            self._coordinator.save()
            for file in self._configuration:
                file.keep_last_good()
            reason = self._runtime_status.write_error
        except OSError as exc:
            reason = exc.strerror or str(exc)
        return f"{self._directory} cannot be written ({reason})" if reason else ""
