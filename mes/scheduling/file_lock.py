"""Locks between processes, on a file and on a state directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mes.config.private_files import NotPrivate, make_private_folder, open_private
from mes.config.timed_lock import LockTimeout, ProcessLock


def check_writable(directory: Path) -> None:
    """Raise OSError if no file can be written in the directory."""
    try:
        fd = os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return  # the file system does not support files without a name
        raise
    try:
        os.write(fd, bytes(4096))
    finally:
        os.close(fd)


def is_named(fd: int, path: Path | str) -> bool:
    """Return whether `path` still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def write_whole(fd: int, content: bytes, at: int) -> None:
    """Write all of the content at a place of the file. Raises OSError if only a part fits."""
    if os.pwrite(fd, content, at) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FileLock(ProcessLock):
    """An exclusive lock between processes on a file by its name, which may be deleted meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(-1)
        self._path = path

    def close(self) -> None:
        """Release the lock for good."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def try_acquire(self) -> bool:
        """Take the lock if it is free, and hold it until `close` or the end of the process."""
        acquired = self.lock_within(0)
        if not acquired:
            self.close()  # the next attempt opens the file that has the name by then
        return acquired

    def inherit(self, fd: int) -> None:
        """Hold the lock by a descriptor that holds it already."""
        self._fd = fd

    def lock_within(self, seconds: float) -> bool:
        """Take the lock; return False if it is not free within the time, which may be 0.

        The file can be locked and unlocked until `close`. Raises OSError if it cannot be opened.
        """
        if self._fd < 0:
            self._fd = open_private(self._path)
        acquired = super().lock_within(seconds)
        if is_named(self._fd, self._path):
            return acquired
        # The lock file was deleted: two processes could hold "the lock" on different files.
        self.close()
        return self.lock_within(seconds)


class StateDirUnavailable(Exception):
    """The state directory cannot be used by this instance; the text has the cause and a remedy."""


def unusable(directory: Path, error: OSError) -> StateDirUnavailable:
    """Return the error for a directory in which no file can be written, or not safely."""
    if isinstance(error, NotPrivate | LockTimeout):
        return StateDirUnavailable(f"STATE_DIR {directory} cannot be used: {error.strerror}")
    return StateDirUnavailable(
        f"STATE_DIR {directory} cannot be used ({error.strerror}); "
        "make room there, or set STATE_DIR to a folder that can be written"
    )


class InstanceLock:
    """The lock on `STATE_DIR/instance.lock`, by which an instance owns the directory.

    The master of the instance holds it. The file contains its process number and address.
    """

    def __init__(self, directory: Path, *, master: int, address: str) -> None:
        self._directory = directory
        self._path = directory / "instance.lock"
        self._lock = FileLock(self._path)
        self._name = f"the MES with process {master} at {address}"

    def acquire(self) -> None:
        """Take the lock, and create the directory if it is absent. Raises StateDirUnavailable."""
        try:
            make_private_folder(self._directory)
            if not self.try_acquire():
                raise StateDirUnavailable(
                    f"STATE_DIR {self._directory} belongs to {self._holder()}; "
                    "stop that one, or set STATE_DIR to another folder"
                )
        except OSError as exc:
            raise unusable(self._directory, exc) from exc

    def try_acquire(self) -> bool:
        """Take the lock if it is free, or again if its file was deleted. Raises OSError."""
        acquired = self._lock.try_acquire()
        if acquired:
            self._write_name()
        return acquired

    def inherit(self, fd: int) -> None:
        """Hold the lock by the descriptor of the master that this one replaces."""
        self._lock.inherit(fd)
        self._write_name()

    def make_inheritable(self) -> int:
        """Return the descriptor that holds the lock, for the master that replaces this one."""
        os.set_inheritable(self._lock.fileno(), True)
        return self._lock.fileno()

    def close(self) -> None:
        """Stop holding the lock in this process; a process that has inherited it keeps it."""
        self._lock.close()

    def _write_name(self) -> None:
        os.ftruncate(self._lock.fileno(), 0)
        os.pwrite(self._lock.fileno(), self._name.encode(), 0)

    def _holder(self) -> str:
        return self._path.read_bytes()[:200].decode(errors="replace") or "another MES"
