"""Files that processes share: replaced whole, held open while trusted, locked by the kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def replace_whole(path: str, content: bytes) -> int:
    """Make `content` the file, so that nobody ever reads half of it; a descriptor of the new file.

    One writer at a time: the draft has one name.
    """
    draft = f"{path}.new"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.replace(draft, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


class HeldFile:
    """The content of a file that others replace, read again only when they have.

    The file stays open, because the kernel may give the number of a closed and replaced file to
    the next one: only while it is held does an equal number mean an unchanged file.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._fd = -1
        self._inode = -1
        self.content = b""

    def is_current(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return self._inode == -1

    def read(self) -> bytes:
        """What the file holds now; empty where there is none."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.let_go()
            return b""
        self._hold(fd, os.read(fd, os.fstat(fd).st_size))
        return self.content

    def replace(self, content: bytes) -> None:
        self._hold(replace_whole(self._path, content), content)

    def let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._inode, self.content = -1, -1, b""

    def _hold(self, fd: int, content: bytes) -> None:
        self.let_go()
        self._fd, self._inode, self.content = fd, os.fstat(fd).st_ino, content


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
            return False

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
