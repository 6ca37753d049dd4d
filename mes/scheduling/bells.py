"""Bells: pipes by which workers wake each other's waiting tickets.

A wake-up may get lost; what it tells stands in the state.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from mes.event_loop import EventLoop


class Bell:
    """This worker's own pipe, `workers/<id>.bell`."""

    def __init__(self, path: Path, event_loop: EventLoop, answer: Callable[[str], None]) -> None:
        self._path = path
        self._event_loop = event_loop
        self._answer = answer
        self._fd = -1
        self._rest = b""
        self._lock = threading.Lock()

    @property
    def hangs(self) -> bool:
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
        *rung, self._rest = (self._rest + self._read()).split(b"\n")
        for ticket in rung:
            self._answer(ticket.decode(errors="replace"))

    def _read(self) -> bytes:
        with self._lock:  # its number may be another file's once it is closed
            try:
                return os.read(self._fd, 65536)
            except OSError:
                return b""  # another one has been hung up meanwhile


class Bells:
    """The other workers' pipes, kept open for writing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[str, int] = {}
        # One at a time, or a bell closed by one thread could be another file's number in the next.
        self._ringing = threading.Lock()

    def ring(self, worker: str, ticket: str) -> None:
        with self._ringing:
            try:
                os.write(self._of(worker), f"{ticket}\n".encode())
            except OSError:
                # Dead, or its pipe is full: the keeper buries the one, the other looks by itself.
                self._forget(worker)

    def owners(self) -> list[str]:
        """The workers that have hung up a bell, dead ones included."""
        return [path.stem for path in self._directory.glob("*.bell")]

    def take_down(self, worker: str) -> None:
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
