"""Worker processes: which of them live, and the pipes that wake their waiting requests."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mes.event_loop import EventLoop

# Bells: pipes by which workers wake each other's waiting tickets. A wake-up may get lost; what it
# tells stands in the state.


class WakeupPipe:
    """This worker's own pipe, `workers/<id>.bell`."""

    def __init__(self, path: Path, event_loop: EventLoop, answer: Callable[[str], None]) -> None:
        self._path = path
        self._event_loop = event_loop
        self._answer = answer
        self._fd = -1
        self._rest = b""
        self._lock = threading.Lock()

    @property
    def is_in_place(self) -> bool:
        """Can others find it?"""
        try:
            return self._fd >= 0 and os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def hang_up(self) -> None:
        """Make a new pipe in place of what there is. Raises OSError where that cannot be."""
        for folder in (self._path.parent.parent, self._path.parent):  # each one private
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self.close()
        # Open for writing too: a pipe without a writer would always be readable.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._event_loop.add_reader(self._fd, self._listen)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self._event_loop.remove_reader(self._fd)
                os.close(self._fd)
            self._fd = -1

    def _listen(self) -> None:
        *wakeup, self._rest = (self._rest + self._read()).split(b"\n")
        for ticket in wakeup:
            self._answer(ticket.decode(errors="replace"))

    def _read(self) -> bytes:
        with self._lock:  # its number may be another file's once it is closed
            try:
                return os.read(self._fd, 65536)
            except OSError:
                return b""  # another one has been hung up meanwhile


class WakeupPipes:
    """The other workers' pipes, kept open for writing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[str, int] = {}
        # One at a time, or a bell closed by one thread could be another file's number in the next.
        self._ringing = threading.Lock()

    def wake(self, worker: str, ticket: str) -> None:
        with self._ringing:
            try:
                os.write(self._of(worker), f"{ticket}\n".encode())
            except OSError:
                # Dead, or its pipe is full: the keeper buries the one, the other looks by itself.
                self._forget(worker)

    def owners(self) -> list[str]:
        """The workers that have hung up a bell, dead ones included."""
        return [path.stem for path in self._directory.glob("*.bell")]

    def remove(self, worker: str) -> None:
        """Remove what a worker has left. Raises OSError where that cannot be."""
        with self._ringing:
            self._forget(worker)
        (self._directory / f"{worker}.bell").unlink(missing_ok=True)

    def close(self) -> None:
        with self._ringing:
            for worker in list(self._fds):
                self._forget(worker)

    def _of(self, worker: str) -> int:
        if worker not in self._fds:
            path = self._directory / f"{worker}.bell"
            self._fds[worker] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._fds[worker]

    def _forget(self, worker: str) -> None:
        fd = self._fds.pop(worker, None)
        if fd is not None:
            os.close(fd)


# A worker among workers: known by its process, and can be woken.

log = logging.getLogger(__name__)

# A wake-up that got lost costs a waiting request this much and no more.
_LOOKS_EVERY_SECONDS = 2.0
# Where nobody can wake it because it could not hang up a bell.
_LOOKS_EVERY_SECONDS_UNBELLED = 0.1


class WorkerProcess:
    """This process, as the others see it.

    Its name holds the number of its process and when that started, so everybody can see whether it
    lives; what a dead one owned is void.
    """

    def __init__(self, directory: Path, event_loop: EventLoop) -> None:
        pid = os.getpid()
        self.id = f"{pid}-{_started(pid)}-{secrets.token_hex(3)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[str, threading.Event] = {}
        self._others = WakeupPipes(directory / "workers")
        self._wakeup_pipe = WakeupPipe(
            directory / "workers" / f"{self.id}.bell", event_loop, self._wake
        )
        self._can_be_woken = False
        with suppress(OSError):  # it serves without a bell too
            self._create_wakeup_pipe()

    def new_ticket(self) -> str:
        """A name for a ticket, unlike any other."""
        return f"{self.id}/{next(self._numbers)}"

    @property
    def check_interval_seconds(self) -> float:
        """How often a ticket that waits here must look for itself."""
        return _LOOKS_EVERY_SECONDS if self._can_be_woken else _LOOKS_EVERY_SECONDS_UNBELLED

    @contextmanager
    def wakeup_for(self, ticket: str) -> Iterator[threading.Event]:
        """An event that is set when somebody rings for the ticket."""
        wakeup = self._waiting[ticket] = threading.Event()
        try:
            yield wakeup
        finally:
            del self._waiting[ticket]

    def wake(self, worker: str, ticket: str) -> None:
        """Wake a ticket, here or in another worker."""
        if worker == self.id:
            self._wake(ticket)
        else:
            self._others.wake(worker, ticket)

    def wake_all(self) -> None:
        """Wake every ticket that waits here."""
        for wakeup in list(self._waiting.values()):
            wakeup.set()

    def others(self) -> list[str]:
        """The workers that have hung up a bell here, dead ones included."""
        return [name for name in self._others.owners() if name != self.id]

    def repair_wakeup_pipe(self) -> None:
        """Hang the bell up again if somebody has taken it down. Raises OSError."""
        if not self._wakeup_pipe.is_in_place:
            self._create_wakeup_pipe()
            log.warning("wakeup_pipe_renewed", extra={"worker": self.id})

    def pids(self) -> list[int]:
        """The processes of the workers that live, this one included."""
        living = [self.id, *filter(is_worker_alive, self.others())]
        return [int(worker.partition("-")[0]) for worker in living]

    def remove_files(self, worker: str) -> None:
        """Remove what a dead worker has left in the directory. Raises OSError."""
        self._others.remove(worker)

    def close(self) -> None:
        """Leave nothing in the directory."""
        with suppress(OSError):  # the next keeper sweeps
            self.remove_files(self.id)
        self._others.close()
        self._wakeup_pipe.close()

    def _create_wakeup_pipe(self) -> None:
        self._can_be_woken = False
        self._wakeup_pipe.hang_up()
        self._can_be_woken = True

    def _wake(self, ticket: str) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is not None:
            waiting.set()


def is_worker_alive(worker: str) -> bool:
    """Does the process of the worker with this name still run?"""
    pid, _, rest = worker.partition("-")
    return pid.isdecimal() and _started(int(pid)) == rest.partition("-")[0]


def _started(pid: int) -> str | None:
    """When the process started, in ticks since the machine did; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # The name in brackets may hold anything; the rest comes after it.
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, started = fields[0], int(fields[17]), fields[19]
    # Killed, its first thread may be gone while others still hold what the process had open.
    return None if state in "ZX" and threads <= 1 else started
