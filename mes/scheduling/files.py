"""Files that processes share: replaced whole, locked by the kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def replace_whole(path: Path, content: bytes) -> None:
    """Make `content` the file, so that nobody ever reads half of it.

    One writer at a time: the draft has one name. Raises OSError; the old file then stays.
    """
    draft = f"{path}.new"
    with open(draft, "wb", opener=_private) as file:
        file.write(content)
    os.replace(draft, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class FileLock:
    """An exclusive lock between processes that the kernel frees when its holder dies.

    Not between threads: two of one process must not use the same FileLock at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._fd = -1
        self._inode = -1

    def __enter__(self) -> None:
        """Wait for the lock and hold it for the length of the block."""
        while not self._take(fcntl.LOCK_EX):
            pass

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def fileno(self) -> int:
        """The file itself, for who holds the lock and keeps in the file what it guards."""
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
            self.close()  # the next try looks at what the file is by then
            return False

    def inherit(self, fd: int) -> None:
        """Hold the lock by a descriptor that holds it already."""
        self._fd, self._inode = fd, os.fstat(fd).st_ino

    def _take(self, how: int) -> bool:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = os.fstat(self._fd).st_ino
        fcntl.flock(self._fd, how)
        if self._is_the_file():
            return True
        # Somebody deleted the lock file: two workers could hold "the lock" on different files.
        os.close(self._fd)
        self._fd = -1
        return False

    def _is_the_file(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return False
