"""What gunicorn's master shares with the workers it forks: memory that no disk can harm."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

# Version, length, and the version again: who reads while somebody writes sees that they differ.
_HEADER = struct.Struct("=QQQ")
# Documents take turns in two places, so that the last one is whole while the next is written. What
# lies between costs nothing: memory that was never written is not there.
_PLACES = (1 << 12, 1 << 26)


class Memory:
    """A file in memory, without a name in any folder; all who inherit it use it as a Document."""

    def __init__(self, name: str, fd: int | None = None) -> None:
        self.fd = os.memfd_create(f"mes-{name}") if fd is None else fd
        if os.fstat(self.fd).st_size < _HEADER.size:
            os.ftruncate(self.fd, _HEADER.size)

    @classmethod
    def at(cls, path: Path) -> Memory:
        """The same with a name, for processes that have inherited nothing from each other."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(path.name, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        os.close(self.fd)


class Document:
    """The bytes in a Memory, replaced whole; with a lock that the kernel frees with its holder.

    Not for two threads at a time. Each Document excludes all others from the lock, also those of
    its own process.
    """

    def __init__(self, memory: Memory) -> None:
        # Opened anew: processes that share an inherited descriptor would share its lock.
        self._fd = os.open(memory.path, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> None:
        """Wait for the lock and hold it for the length of the block."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def lock_if_free(self) -> bool:
        """Take the lock unless somebody has it, and keep it until `unlock` or the process's end."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def version(self) -> int:
        """A number that is another one after each `write`; 0 before the first."""
        return self._header()[0]

    def read(self) -> tuple[int, bytes]:
        """The version and the bytes."""
        while True:
            before = version, length, again = self._header()
            content = os.pread(self._fd, length, _PLACES[version % 2])
            if version == again and before == self._header():
                return version, content

    def write(self, content: bytes) -> int:
        """Replace the bytes, with the lock held; the new version. Who is killed changes nothing."""
        version = self.version() + 1
        os.pwrite(self._fd, content, _PLACES[version % 2])
        os.pwrite(self._fd, _HEADER.pack(version, len(content), version), 0)
        return version

    def close(self) -> None:
        os.close(self._fd)

    def _header(self) -> tuple[int, int, int]:
        version, length, again = _HEADER.unpack(os.pread(self._fd, _HEADER.size, 0))
        return version, length, again


class Mark:
    """A flag that the master sets and its workers see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    def __bool__(self) -> bool:
        return bool(self._memory[0])


@dataclass(frozen=True)
class Shared:
    """All that the workers of one master inherit. Made before they are forked."""

    registry: Memory = field(default_factory=partial(Memory, "registry"))
    sight: Memory = field(default_factory=partial(Memory, "sight"))
    stopping: Mark = field(default_factory=Mark)

    @classmethod
    def at(cls, directory: Path, era: str) -> Shared:
        """For processes without a common master, which agree by the folder they are given.

        The files outlive them: whoever could not read them says that it is another `era`.
        """
        return cls(
            Memory.at(directory / f"registry-{era}.shared"),
            Memory.at(directory / f"sight-{era}.shared"),
        )

    def close(self) -> None:
        for memory in (self.registry, self.sight):
            memory.close()
