"""Locks that wait for other processes only until a deadline, and name the process that holds them.

A process that is stopped (SIGSTOP, a debugger) keeps its locks, and the kernel would let all others
wait until it continues or is killed.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

# For locks that are taken before the settings are known. LOCK_TIMEOUT has the same default.
LOCK_SECONDS = 5.0

# A lock is usually held for about 10 us. The longest pause is short enough that a process which
# waits is not overtaken for long by others that take the lock again at once.
_FIRST_PAUSE_SECONDS = 0.00002
_LONGEST_PAUSE_SECONDS = 0.001

# The states of a process in /proc/<pid>/stat that explain why it does not release a lock.
_STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk"}


class LockTimeout(OSError):
    """Another process holds a lock for too long; `strerror` names it and has the remedy."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock: its number, and its state in words."""

    pid: int
    state: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.state})"

    @property
    def remedy(self) -> str:
        """How a person makes the process release the lock."""
        resume = f"continue it (kill -CONT {self.pid}) or " if self.state == _STATES["T"] else ""
        return f"{resume}end it (kill -9 {self.pid})"


def _problem(holder: Holder | None) -> str:
    if holder is None:
        return "another process holds the lock"
    return f"{holder} holds the lock; {holder.remedy}"


def doubling_pauses(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield the pauses between attempts, in seconds."""
    pause = first_seconds
    while True:
        yield pause
        pause = min(2 * pause, longest_seconds)


def holder_of(fd: int) -> Holder | None:
    """Return the process that holds the lock on a file; None if the kernel shows none."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None  # the file is not open
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    pids: dict[str, int] = {}
    for line in _kernel_locks():
        # Such as `1: FLOCK ADVISORY WRITE 4711 00:19:63 0 EOF`; with `->` in lines of waiters.
        if line[1:2] == ["FLOCK"] and line[5].endswith(f":{found.st_ino}"):
            pids[line[5].rpartition(":")[0]] = int(line[4])
    # Some file systems show another device there than stat(2) does.
    pid = pids.get(device, next(iter(pids.values()), 0))
    return Holder(pid, _state(pid)) if pid > 0 else None


def _kernel_locks() -> list[list[str]]:
    try:
        return [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "ended"
    return _STATES.get(state, "running")


class ProcessLock:
    """An exclusive lock between processes on an open file.

    The kernel releases it when its holder dies. It does not lock between threads: two of one
    process must not use it at once.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        """Take the lock. Raises LockTimeout if it is not free within LOCK_SECONDS."""
        self.lock()

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def lock(self) -> None:
        if not self.lock_within(LOCK_SECONDS):
            raise LockTimeout(errno.ETIMEDOUT, _problem(holder_of(self._fd)))

    def lock_within(self, seconds: float) -> bool:
        """Take the lock; return False if it is not free within the time, which may be 0."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return seconds > 0 and self._retry(time.monotonic() + seconds)
        return True

    def _retry(self, deadline: float) -> bool:
        # flock(2) has no time limit, and a signal that would interrupt it reaches only the main
        # thread.
        for pause in doubling_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS):
            left = deadline - time.monotonic()
            time.sleep(max(0.0, min(pause, left)))
            with suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if left <= pause:
                return False
        raise AssertionError

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def fileno(self) -> int:
        return self._fd


class TimedLock:
    """A lock between all threads of all processes, which waits no longer than a time limit.

    After a wait that was too long, further attempts fail at once until one succeeds: the threads
    of a worker are few, and each would wait as long for nothing.

    Args:
        file: The lock between processes.
        path: The name of the file, for the log.
        timeout_seconds: The time limit.
        noun: Starts the names of the log events.
    """

    def __init__(self, file: ProcessLock, path: Path, *, timeout_seconds: float, noun: str) -> None:
        self._file = file
        self._path = path
        self.timeout_seconds = timeout_seconds
        self._noun = noun
        self._threads = threading.Lock()
        # Many threads may wait for longer than the time limit, one after the other.
        self._acquisitions = 0
        # Why the lock cannot be had, from the first attempt that failed until one succeeds.
        self.problem = ""

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, seconds: float | None = None) -> None:
        """Take the lock.

        Args:
            seconds: A time limit below the usual one, for an attempt that says nothing about the
                process that holds the lock.

        Raises:
            LockTimeout: the lock is not free in time.
            OSError: the file cannot be opened.
        """
        is_usual = seconds is None and not self.problem
        limit = 0.0 if self.problem else self.timeout_seconds if seconds is None else seconds
        if not self._threads.acquire(blocking=False):
            self._wait_for_threads(limit, is_usual=is_usual)
        acquired = False
        try:
            acquired = self._file.lock_within(0.0 if self.problem else limit)
            if not acquired:
                raise self._error(is_usual=is_usual)
        finally:
            if not acquired:
                self._threads.release()
        self._acquisitions += 1
        if self.problem:
            self.problem = ""
            log.info(f"{self._noun}_unlocked", extra={"path": str(self._path)})

    def release(self) -> None:
        try:
            self._file.unlock()
        finally:
            self._threads.release()

    def _wait_for_threads(self, seconds: float, *, is_usual: bool) -> None:
        """Take the lock between threads, or raise LockTimeout if none gets the file's in time."""
        before = -1
        while before != self._acquisitions:
            before = self._acquisitions
            if self._threads.acquire(timeout=seconds):
                return
            if not is_usual:
                break
        raise self._error(is_usual=is_usual)

    def _error(self, *, is_usual: bool) -> LockTimeout:
        if is_usual and not self.problem:
            self._begin_problem()
        return LockTimeout(errno.ETIMEDOUT, self.problem or "the lock is not free yet")

    def _begin_problem(self) -> None:
        holder = holder_of(self._file.fileno())
        fields = {} if holder is None else {"holder": holder.pid, "holder_state": holder.state}
        fields |= {"path": str(self._path), "seconds": self.timeout_seconds}
        log.warning(f"{self._noun}_locked", extra=fields)
        self.problem = _problem(holder)
