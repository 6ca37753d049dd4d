"""A worker among workers: known by its process, and can be woken."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mes.event_loop import EventLoop
from mes.scheduling.bells import Bell, Bells

log = logging.getLogger(__name__)

# A wake-up that got lost costs a waiting request this much and no more.
_LOOKS_EVERY_SECONDS = 2.0
# Where nobody can wake it because it could not hang up a bell.
_LOOKS_EVERY_SECONDS_UNBELLED = 0.1


class Worker:
    """This process, as the others see it.

    Its name holds the number of its process and when that started, so everybody can see whether it
    lives; what a dead one owned is void.
    """

    def __init__(self, directory: Path, event_loop: EventLoop) -> None:
        pid = os.getpid()
        self.id = f"{pid}-{_started(pid)}-{secrets.token_hex(3)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[str, threading.Event] = {}
        self._others = Bells(directory / "workers")
        self._bell = Bell(directory / "workers" / f"{self.id}.bell", event_loop, self._wake)
        self._can_be_woken = False
        with suppress(OSError):  # it serves without a bell too
            self._hang_up_bell()

    def new_ticket(self) -> str:
        """A name for a ticket, unlike any other."""
        return f"{self.id}/{next(self._numbers)}"

    @property
    def looks_every_seconds(self) -> float:
        """How often a ticket that waits here must look for itself."""
        return _LOOKS_EVERY_SECONDS if self._can_be_woken else _LOOKS_EVERY_SECONDS_UNBELLED

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
        else:
            self._others.ring(worker, ticket)

    def wake_all(self) -> None:
        """Wake every ticket that waits here."""
        for rung in list(self._waiting.values()):
            rung.set()

    def others(self) -> list[str]:
        """The workers that have hung up a bell here, dead ones included."""
        return [name for name in self._others.owners() if name != self.id]

    def look_after_bell(self) -> None:
        """Hang the bell up again if somebody has taken it down. Raises OSError."""
        if not self._bell.hangs:
            self._hang_up_bell()
            log.warning("bell_renewed", extra={"worker": self.id})

    def pids(self) -> list[int]:
        """The processes of the workers that live, this one included."""
        living = [self.id, *filter(is_alive, self.others())]
        return [int(worker.partition("-")[0]) for worker in living]

    def sweep(self, worker: str) -> None:
        """Remove what a dead worker has left in the directory. Raises OSError."""
        self._others.take_down(worker)

    def close(self) -> None:
        """Leave nothing in the directory."""
        with suppress(OSError):  # the next keeper sweeps
            self.sweep(self.id)
        self._others.close()
        self._bell.close()

    def _hang_up_bell(self) -> None:
        self._can_be_woken = False
        self._bell.hang_up()
        self._can_be_woken = True

    def _wake(self, ticket: str) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is not None:
            waiting.set()


def is_alive(worker: str) -> bool:
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
