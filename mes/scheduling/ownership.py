"""Ownership: one instance of the service has a state directory to itself."""

from __future__ import annotations

import os
from pathlib import Path

from mes.scheduling.file_lock import FileLock


class CannotOwn(Exception):
    """Why the directory cannot be this instance's, in words."""


def cannot_use(directory: Path, error: OSError) -> CannotOwn:
    """Return the refusal of a directory in which no file can be written."""
    return CannotOwn(
        f"STATE_DIR {directory} cannot be used ({error.strerror}); "
        "make room there, or set STATE_DIR to a folder that can be written"
    )


class Ownership:
    """The lock on `STATE_DIR/owner.lock`, held by the master of the instance.

    The file says who that is.
    """

    def __init__(self, directory: Path, *, master: int, address: str) -> None:
        self._directory = directory
        self._path = directory / "owner.lock"
        self._lock = FileLock(self._path)
        self._name = f"the MES with process {master} at {address}"

    def take(self) -> None:
        """Make the directory this instance's. Raises CannotOwn."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.keep():
                raise CannotOwn(
                    f"STATE_DIR {self._directory} belongs to {self._owner()}; "
                    "stop that one, or set STATE_DIR to another folder"
                )
        except OSError as exc:
            raise cannot_use(self._directory, exc) from exc

    def keep(self) -> bool:
        """Take the lock if nobody has it: the file may have been deleted. Raises OSError."""
        taken = self._lock.take_for_life()
        if taken:
            self._sign()
        return taken

    def inherit(self, fd: int) -> None:
        """Hold the lock as the one did in whose place this process was started."""
        self._lock.inherit(fd)
        self._sign()

    def hand_on(self) -> int:
        """The descriptor that holds the lock, for the program that is started in our place."""
        os.set_inheritable(self._lock.fileno(), True)
        return self._lock.fileno()

    def let_go(self) -> None:
        """Hold it no more in this process; whoever has inherited it goes on."""
        self._lock.close()

    def _sign(self) -> None:
        os.ftruncate(self._lock.fileno(), 0)
        os.pwrite(self._lock.fileno(), self._name.encode(), 0)

    def _owner(self) -> str:
        return self._path.read_bytes()[:200].decode(errors="replace") or "another MES"
