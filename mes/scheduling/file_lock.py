"""Locks between processes: on a file, and on the state directory of an instance."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

# Locks and files that processes share: a lock that the kernel frees, a file replaced whole.


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


# The lock by which one instance of the service has a state directory to itself.


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
