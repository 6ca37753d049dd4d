"""The ledger: rows of numbers that all workers add to, in one file under one lock."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterable
from pathlib import Path

from mes.scheduling.file_lock import FileLock

# Divides a page of memory: a write within one page is done or not done, also by who is killed.
_RECORD = 2048


class Ledger:
    """Numbers under keys, which only ever grow.

    The file belongs to no worker, so none takes its numbers along when it dies. It is read and
    written, not mapped: whoever touches a mapped file that was truncated, or for which the disk has
    no room, is killed.
    """

    def __init__(self, path: Path, *, width: int) -> None:
        self._lock = FileLock(path)
        self._threads = threading.Lock()
        self._nothing = bytes(8 * width)
        self._key_bytes = _RECORD - len(self._nothing)
        self._places: dict[bytes, int] = {}

    def add(self, key: bytes, amounts: Iterable[tuple[int, float]]) -> None:
        """Add to some numbers of a row. Raises OSError where the file cannot be written."""
        key = key.ljust(self._key_bytes, b"\0")
        assert len(key) == self._key_bytes, "the key is too long"
        with self._threads, self._lock:
            fd = self._lock.fileno()
            place, numbers = self._row(fd, key)
            for index, amount in amounts:
                numbers[index] += amount
            os.pwrite(fd, key + numbers.tobytes(), place)

    def read(self) -> dict[bytes, array[float]]:
        """All rows as they stand. Raises OSError where the file cannot be read."""
        with self._threads, self._lock:
            content = _content(self._lock.fileno())
        records = (content[at : at + _RECORD] for at in _places(content))
        return {
            record[: self._key_bytes].rstrip(b"\0"): self._numbers(record) for record in records
        }

    def close(self) -> None:
        """Let go of the file."""
        self._lock.close()

    def _row(self, fd: int, key: bytes) -> tuple[int, array[float]]:
        """Where the row is, and what it holds; a new one at the end where there is none."""
        place = self._places.get(key)
        if place is None or not (record := os.pread(fd, _RECORD, place)).startswith(key):
            place = self._look_for(fd, key)
            record = os.pread(fd, _RECORD, place)
        # Short at the end of the file, and where somebody has cut a piece off it.
        return place, self._numbers(record if len(record) == _RECORD else key + self._nothing)

    def _look_for(self, fd: int, key: bytes) -> int:
        content = _content(fd)
        places = _places(content)
        self._places = {content[at : at + self._key_bytes]: at for at in places}
        return self._places.setdefault(key, places.stop)

    def _numbers(self, record: bytes) -> array[float]:
        return array("d", record[self._key_bytes :])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _places(content: bytes) -> range:
    return range(0, len(content) // _RECORD * _RECORD, _RECORD)
