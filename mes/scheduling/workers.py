"""Worker processes: which of them run, and the pipes that wake their waiting requests."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mes.config.private_files import make_private_folder
from mes.event_loop import EventLoop
from mes.scheduling.file_lock import is_named

log = logging.getLogger(__name__)

# The delay of a waiting request whose wake-up was lost.
_CHECK_SECONDS = 2.0
# The same in a worker that could not create its wakeup pipe, which no other worker can wake.
_CHECK_SECONDS_WITHOUT_PIPE = 0.1


class WakeupPipe:
    """The named pipe of this worker, into which other workers write the ids of tickets to wake.

    A wake-up may be lost, so it carries no information that the shared state does not contain.

    Args:
        path: The name of the pipe.
        event_loop: Reads the pipe.
        on_wakeup: Called with the id of each ticket, in the thread of the event loop.
    """

    def __init__(self, path: Path, event_loop: EventLoop, on_wakeup: Callable[[str], None]) -> None:
        self._path = path
        self._event_loop = event_loop
        self._on_wakeup = on_wakeup
        self._fd = -1
        self._incomplete_line = b""
        self._lock = threading.Lock()

    @property
    def is_named(self) -> bool:
        """Whether the path still leads to this pipe, so that other workers can open it."""
        return self._fd >= 0 and is_named(self._fd, self._path)

    def create(self) -> None:
        """Create the pipe, in place of an earlier one. Raises OSError."""
        for folder in (self._path.parent.parent, self._path.parent):  # each one private
            make_private_folder(folder)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        self.close()
        # Open for writing too: a pipe without a writer would always be readable.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._event_loop.add_reader(self._fd, self._read_tickets)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self._event_loop.remove_reader(self._fd)
                os.close(self._fd)
            self._fd = -1

    def _read_tickets(self) -> None:
        *tickets, self._incomplete_line = (self._incomplete_line + self._read()).split(b"\n")
        for ticket in tickets:
            self._on_wakeup(ticket.decode(errors="replace"))

    def _read(self) -> bytes:
        with self._lock:  # once closed, the descriptor's number may be that of another file
            try:
                return os.read(self._fd, 65536)
            except OSError:
                return b""  # closed, or replaced by a new pipe, since the event was reported


class WakeupPipes:
    """The wakeup pipes of the other workers, kept open for writing.

    Args:
        directory: The folder of the pipes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[str, int] = {}
        # Without it, one thread could close a descriptor that another is about to write to, and
        # the number could be that of another file by then.
        self._lock = threading.Lock()

    def wake(self, worker: str, ticket: str) -> None:
        """Wake a ticket of another worker, if that can be done without waiting."""
        with self._lock:
            try:
                os.write(self._open(worker), f"{ticket}\n".encode())
            except OSError:
                # The worker has died, which the leader handles, or its pipe is full: then its
                # tickets check the state by themselves.
                self._close(worker)

    def owners(self) -> list[str]:
        """Return the workers that have a pipe, those that have died included."""
        return [path.stem for path in self._directory.glob("*.wakeup")]

    def remove(self, worker: str) -> None:
        """Delete the pipe of a worker. Raises OSError."""
        with self._lock:
            self._close(worker)
        self._path(worker).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            for worker in list(self._fds):
                self._close(worker)

    def _path(self, worker: str) -> Path:
        return self._directory / f"{worker}.wakeup"

    def _open(self, worker: str) -> int:
        if worker not in self._fds:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fds[worker] = os.open(self._path(worker), flags)
        return self._fds[worker]

    def _close(self, worker: str) -> None:
        fd = self._fds.pop(worker, None)
        if fd is not None:
            os.close(fd)


class WorkerProcess:
    """This process as the other workers know it: by an id, and by its wakeup pipe.

    The id contains the process number and the time when the process started, so every process can
    find out whether the worker still runs. A worker that has died owns nothing.

    Args:
        directory: STATE_DIR.
        event_loop: Reads the wakeup pipe.
    """

    def __init__(self, directory: Path, event_loop: EventLoop) -> None:
        pid = os.getpid()
        self.id = f"{pid}-{_start_time(pid)}-{secrets.token_hex(3)}"
        self._ticket_numbers = itertools.count(1)
        self._wakeup_events: dict[str, threading.Event] = {}
        folder = directory / "workers"
        self._pipes = WakeupPipes(folder)
        self._pipe = WakeupPipe(folder / f"{self.id}.wakeup", event_loop, self._wake_here)
        self._has_pipe = False
        with suppress(OSError):  # a worker without a pipe serves requests too
            self._create_pipe()

    def new_ticket(self) -> str:
        """Return a new id for a ticket, unique among all workers."""
        return f"{self.id}/{next(self._ticket_numbers)}"

    @property
    def check_interval_seconds(self) -> float:
        """How often a ticket that waits here must check the state without being woken."""
        return _CHECK_SECONDS if self._has_pipe else _CHECK_SECONDS_WITHOUT_PIPE

    @contextmanager
    def wakeup_event(self, ticket: str) -> Iterator[threading.Event]:
        """Yield an event that is set when the ticket is woken."""
        event = self._wakeup_events[ticket] = threading.Event()
        try:
            yield event
        finally:
            del self._wakeup_events[ticket]

    def wake(self, worker: str, ticket: str) -> None:
        """Wake a ticket, in this worker or another."""
        if worker == self.id:
            self._wake_here(ticket)
        else:
            self._pipes.wake(worker, ticket)

    def wake_all(self) -> None:
        """Wake every ticket that waits in this worker."""
        for event in list(self._wakeup_events.values()):
            event.set()

    def others(self) -> list[str]:
        """Return the ids of the other workers that have a pipe, those that have died included."""
        return [worker for worker in self._pipes.owners() if worker != self.id]

    def repair_wakeup_pipe(self) -> None:
        """Create the pipe again if its name was deleted. Raises OSError."""
        if not self._pipe.is_named:
            self._create_pipe()
            log.warning("wakeup_pipe_renewed", extra={"worker": self.id})

    def pids(self) -> list[int]:
        """Return the process numbers of the workers that run, this one included."""
        running = [self.id, *filter(is_worker_alive, self.others())]
        return [int(worker.partition("-")[0]) for worker in running]

    def remove_files(self, worker: str) -> None:
        """Delete the files that a worker has left in the directory. Raises OSError."""
        self._pipes.remove(worker)

    def close(self) -> None:
        """Delete this worker's files and close all pipes."""
        with suppress(OSError):  # the leader deletes the files of workers that have ended
            self.remove_files(self.id)
        self._pipes.close()
        self._pipe.close()

    def _create_pipe(self) -> None:
        self._has_pipe = False
        self._pipe.create()
        self._has_pipe = True

    def _wake_here(self, ticket: str) -> None:
        event = self._wakeup_events.get(ticket)
        if event is not None:
            event.set()


def is_worker_alive(worker: str) -> bool:
    """Return whether the process of the worker with this id still runs."""
    pid, _, rest = worker.partition("-")
    return pid.isdecimal() and _start_time(int(pid)) == rest.partition("-")[0]


def _start_time(pid: int) -> str | None:
    """Return when the process started, in clock ticks after the boot; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            # The program's name in brackets may contain spaces; the other fields come after it.
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, start_time = fields[0], int(fields[17]), fields[19]
    # The first thread of a killed process may end before others, which keep its files open.
    return None if state in "ZX" and threads <= 1 else start_time
