"""Processes that hold the lock on a file and are stopped, as by SIGSTOP or a debugger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mes.config.timed_lock import holder_of
from tests.support.process import wait_until
from tests.support.service import Service

_HOLD = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
os.kill(os.getpid(), signal.SIGSTOP)
"""


class LockHolder:
    """A process that took the lock and was stopped; `resume` and `kill` make it release it."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", _HOLD, str(path)])
        self.pid = self._process.pid

    def wait_until_stopped(self) -> None:
        wait_until(lambda: is_stopped(self.pid), why="the process that holds the lock is stopped")

    def resume(self) -> None:
        self._end(signal.SIGCONT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, number)
        self._process.wait(10)


@contextmanager
def stopped_holder(path: Path) -> Iterator[LockHolder]:
    """Let a stopped process hold the lock on the file during the block, or until it is ended."""
    holder = LockHolder(path)
    try:
        holder.wait_until_stopped()
        yield holder
    finally:
        holder.kill()


@contextmanager
def stopped_worker(service: Service) -> Iterator[int]:
    """Stop a worker that holds the lock on the shared state during the block, and yield its pid.

    There have to be requests, so that workers take the lock.
    """
    with (service.state_dir / "registry.json").open() as registry:
        pid = wait_until(lambda: _stop_holder(registry.fileno(), service), seconds=60)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _stop_holder(fd: int, service: Service) -> int:
    """Stop the worker that holds the lock, and return its pid; 0 if it holds it no longer."""
    pid = _holder(fd)
    if pid not in service.worker_pids():
        return 0
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(pid))
        time.sleep(0.01)  # its other threads stop a little later
        if _holder(fd) == pid:
            return pid
        os.kill(pid, signal.SIGCONT)
    except OSError:
        pass  # it was killed
    return 0


def _holder(fd: int) -> int:
    found = holder_of(fd)
    return 0 if found is None else found.pid


def is_stopped(pid: int) -> bool:
    """Return whether the process is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
