"""A worker among workers: proves that it lives, and can be woken."""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mes.watch import Watch


class Worker:
    """This process, as the others see it.

    It holds a kernel lock on `workers/<id>.lock` for as long as it lives; found free, that lock
    says that everything the worker owned is void. `workers/<id>.bell` is a pipe by which others
    wake a ticket that waits here. A wake-up may get lost; what it tells stands in the state.
    """

    def __init__(self, directory: Path, watch: Watch) -> None:
        self._directory = directory / "workers"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.id = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[str, threading.Event] = {}
        self._bells: dict[str, int] = {}
        self._ringing = threading.Lock()
        self._rest = b""
        # The lock first: what is killed between the two must not leave a bell that nobody sweeps.
        self._lock = self._take_lock()
        self._bell = self._hang_up_bell()
        watch.readable(self._bell, self._answer_bell)

    def new_ticket(self) -> str:
        """A name for a ticket, unlike any other."""
        return f"{self.id}/{next(self._numbers)}"

    @contextmanager
    def expecting(self, ticket: str) -> Iterator[threading.Event]:
        """An event that is set when somebody rings for the ticket."""
        rung = self._waiting[ticket] = threading.Event()
        try:
            yield rung
        finally:
            del self._waiting[ticket]

    def ring(self, worker: str, ticket: str) -> None:
        """Wake a ticket, here or in another worker."""
        if worker == self.id:
            self._wake(ticket)
            return
        # One at a time, or a bell closed by one thread could be another file's number in the next.
        with self._ringing:
            try:
                os.write(self._bell_of(worker), f"{ticket}\n".encode())
            except OSError:
                # Dead, or its pipe is full: the keeper buries the one, the other looks by itself.
                self._forget_bell(worker)

    def is_alive(self, worker: str) -> bool:
        """Does that worker still hold its lock?"""
        if worker == self.id:
            return True
        try:
            fd = os.open(self._directory / f"{worker}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def others(self) -> list[str]:
        """The workers that have left a lock file here, dead ones included."""
        names = [path.stem for path in self._directory.glob("*.lock")]
        return [name for name in names if name != self.id]

    def pids(self) -> list[int]:
        """The processes of the workers that live, this one included."""
        living = [self.id, *filter(self.is_alive, self.others())]
        return [int(worker.partition("-")[0]) for worker in living]

    def sweep(self, worker: str) -> None:
        """Remove what a dead worker has left in the directory."""
        with self._ringing:
            self._forget_bell(worker)
        for suffix in ("lock", "bell"):
            (self._directory / f"{worker}.{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        """Die in good order: what this worker still owns is void from now on."""
        self.sweep(self.id)
        with self._ringing:
            for worker in list(self._bells):
                self._forget_bell(worker)
        os.close(self._bell)
        os.close(self._lock)

    def _hang_up_bell(self) -> int:
        path = self._directory / f"{self.id}.bell"
        os.mkfifo(path, 0o600)
        # Open for writing too: a pipe without a writer would always be readable.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _take_lock(self) -> int:
        # Locked first and named after, so that nobody finds it free while we start.
        draft = self._directory / f"{self.id}.new"
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.replace(draft, self._directory / f"{self.id}.lock")
        return fd

    def _bell_of(self, worker: str) -> int:
        if worker not in self._bells:
            path = self._directory / f"{worker}.bell"
            self._bells[worker] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return self._bells[worker]

    def _forget_bell(self, worker: str) -> None:
        fd = self._bells.pop(worker, None)
        if fd is not None:
            os.close(fd)

    def _answer_bell(self) -> None:
        *rung, self._rest = (self._rest + os.read(self._bell, 65536)).split(b"\n")
        for ticket in rung:
            self._wake(ticket.decode())

    def _wake(self, ticket: str) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is not None:
            waiting.set()
