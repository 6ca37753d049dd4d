"""Locks and files that processes share: a lock that the kernel frees, a file replaced whole."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file, so that no reader ever sees half of it.

    One writer at a time: the draft has one name. Raises OSError; the old file then stays.
    """
    draft = f"{path}.new"
    with open(draft, "wb", opener=_private) as file:
        file.write(content)
    os.replace(draft, path)


def check_writable(directory: Path) -> None:
    """Raise OSError where no file can be written in the directory."""
    try:
        fd = os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return  # a file system that has no files without a name
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


def open_private(path: Path | str) -> int:
    """Open a file for reading and writing; make it, readable by its owner alone, if need be."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write_whole(fd: int, content: bytes, at: int) -> None:
    """Write all of the content at a place of the file. Raises OSError, also for a part of it."""
    if os.pwrite(fd, content, at) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class FileLock:
    """An exclusive lock between processes that the kernel frees when its holder dies.

    It does not lock between threads: two of one process must not use the same FileLock at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._fd = -1

    def __enter__(self) -> None:
        """Wait for the lock and hold it for the length of the block."""
        while not self._take(fcntl.LOCK_EX):
            pass

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def fileno(self) -> int:
        """Return the descriptor of the lock file, for a holder that keeps data in it."""
        return self._fd

    def close(self) -> None:
        """Give the lock up for good."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def take_for_life(self) -> bool:
        """Take the lock if it is free, and keep it until this process ends."""
        try:
            return self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()  # the next try opens the file that has the name by then
            return False

    def inherit(self, fd: int) -> None:
        """Hold the lock by a descriptor that holds it already."""
        self._fd = fd

    def _take(self, how: int) -> bool:
        if self._fd < 0:
            self._fd = open_private(self._path)
        fcntl.flock(self._fd, how)
        if is_named(self._fd, self._path):
            return True
        # The lock file was deleted: two workers could hold "the lock" on different files.
        os.close(self._fd)
        self._fd = -1
        return False
