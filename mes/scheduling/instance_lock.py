"""The lock by which one instance of the service has a state directory to itself."""

from __future__ import annotations

import os
from pathlib import Path

from mes.scheduling.file_lock import FileLock


class StateDirUnavailable(Exception):
    """The directory cannot be this instance's; the text says why and what to do."""


def unusable(directory: Path, error: OSError) -> StateDirUnavailable:
    """Return the error for a directory in which no file can be written."""
    return StateDirUnavailable(
        f"STATE_DIR {directory} cannot be used ({error.strerror}); "
        "make room there, or set STATE_DIR to a folder that can be written"
    )


class InstanceLock:
    """The lock on `STATE_DIR/owner.lock`, held by the master of the instance.

    The file names its process and address.
    """

    def __init__(self, directory: Path, *, master: int, address: str) -> None:
        self._directory = directory
        self._path = directory / "owner.lock"
        self._lock = FileLock(self._path)
        self._name = f"the MES with process {master} at {address}"

    def take(self) -> None:
        """Take the directory. Raises StateDirUnavailable."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.keep():
                raise StateDirUnavailable(
                    f"STATE_DIR {self._directory} belongs to {self._owner()}; "
                    "stop that one, or set STATE_DIR to another folder"
                )
        except OSError as exc:
            raise unusable(self._directory, exc) from exc

    def keep(self) -> bool:
        """Take the lock if it is free: the file may have been deleted. Raises OSError."""
        taken = self._lock.take_for_life()
        if taken:
            self._sign()
        return taken

    def inherit(self, fd: int) -> None:
        """Hold the lock by the descriptor of the master in whose place this one was started."""
        self._lock.inherit(fd)
        self._sign()

    def bequeath(self) -> int:
        """Return the descriptor that holds the lock, for the master that replaces this one."""
        os.set_inheritable(self._lock.fileno(), True)
        return self._lock.fileno()

    def let_go(self) -> None:
        """Stop holding it in this process; a process that has inherited it goes on."""
        self._lock.close()

    def _sign(self) -> None:
        os.ftruncate(self._lock.fileno(), 0)
        os.pwrite(self._lock.fileno(), self._name.encode(), 0)

    def _owner(self) -> str:
        return self._path.read_bytes()[:200].decode(errors="replace") or "another MES"
