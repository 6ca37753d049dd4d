"""Counters of requests, in one file to which all workers add."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import orjson

from mes.config.catalog import Catalog
from mes.config.private_files import read_private
from mes.config.timed_lock import LOCK_SECONDS, LockTimeout, TimedLock
from mes.errors import ModelNotFound
from mes.metrics.definitions import DEFINITIONS, ROW_WIDTH, LogFields, RequestLabels, increments
from mes.scheduling.background_retry import BackgroundRetry
from mes.scheduling.file_lock import FileLock

log = logging.getLogger(__name__)

# The label for models, paths and methods that a client may have made up.
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# A divisor of the size of a memory page: a write within one page is complete or not done at all,
# even if the writer is killed.
_RECORD_BYTES = 2048

# The longest time that a request waits to be counted; if that is too short, it is counted later.
_COUNT_SECONDS = 0.05
_READ_SECONDS = 1.0


class CounterFile:
    """A file of rows of numbers that only grow, each row under a key.

    The file belongs to no worker, so a worker that dies takes no numbers with it. It is read and
    written with system calls and not mapped into memory: a process is killed if it accesses a
    mapped file that was truncated, or for which the disk has no space.

    Args:
        path: the file, created if it does not exist.
        width: the numbers in each row.
    """

    def __init__(self, path: Path, *, width: int) -> None:
        self._path = path
        self._file = FileLock(path)
        self._lock = TimedLock(self._file, path, timeout_seconds=LOCK_SECONDS, noun="metrics")
        self._zeros = bytes(8 * width)
        self._key_bytes = _RECORD_BYTES - len(self._zeros)
        self._offsets: dict[bytes, int] = {}

    def add(
        self, key: bytes, amounts: Iterable[tuple[int, float]], seconds: float | None = None
    ) -> None:
        """Add amounts, given as (index, amount), to the row of `key`.

        Args:
            seconds: the longest wait for the lock on the file, if it is less than usual.

        Raises:
            LockTimeout: another process holds the lock; nothing has changed.
            OSError: the file cannot be written.
        """
        key = key.ljust(self._key_bytes, b"\0")
        assert len(key) == self._key_bytes, "the key is too long"
        self._lock.acquire(seconds)
        try:
            fd = self._file.fileno()
            offset, numbers = self._row(fd, key)
            for index, amount in amounts:
                numbers[index] += amount
            os.pwrite(fd, key + numbers.tobytes(), offset)
        finally:
            self._lock.release()

    def read(self) -> dict[bytes, array[float]]:
        """Return all rows by their keys.

        Raises:
            OSError: the file cannot be read.
        """
        content = self._read()
        records = (content[at : at + _RECORD_BYTES] for at in _record_offsets(content))
        return {
            record[: self._key_bytes].rstrip(b"\0"): self._numbers(record) for record in records
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bytes:
        try:
            self._lock.acquire(_READ_SECONDS)
        except LockTimeout:
            # Without the lock, because the process that holds it is stopped and does not write.
            return read_private(self._path)
        try:
            return _read_all(self._file.fileno())
        finally:
            self._lock.release()

    def _row(self, fd: int, key: bytes) -> tuple[int, array[float]]:
        """Return the offset and the numbers of a row; those of a new row are zeros."""
        offset = self._offsets.get(key)
        if offset is None or not (record := os.pread(fd, _RECORD_BYTES, offset)).startswith(key):
            offset = self._find(fd, key)
            record = os.pread(fd, _RECORD_BYTES, offset)
        # The record is incomplete at the end of the file, or if the file was truncated.
        is_complete = len(record) == _RECORD_BYTES
        return offset, self._numbers(record if is_complete else key + self._zeros)

    def _find(self, fd: int, key: bytes) -> int:
        """Read the offsets of all rows; return that of `key`, which is the end for a new row."""
        content = _read_all(fd)
        offsets = _record_offsets(content)
        self._offsets = {content[at : at + self._key_bytes]: at for at in offsets}
        return self._offsets.setdefault(key, offsets.stop)

    def _numbers(self, record: bytes) -> array[float]:
        return array("d", record[self._key_bytes :])


def _read_all(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _record_offsets(content: bytes) -> range:
    return range(0, len(content) // _RECORD_BYTES * _RECORD_BYTES, _RECORD_BYTES)


class DelayedAmounts:
    """Amounts that are added up in memory, by key, until they can be added to the file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[bytes, defaultdict[int, float]] = {}

    def add(self, key: bytes, amounts: Iterable[tuple[int, float]]) -> None:
        with self._lock:
            row = self._rows.setdefault(key, defaultdict(float))
            for index, amount in amounts:
                row[index] += amount

    def take(self) -> list[tuple[bytes, list[tuple[int, float]]]]:
        """Remove and return all rows."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return [(key, list(row.items())) for key, row in rows.items()]


class RequestCounters:
    """Counts the requests of all workers, in `STATE_DIR/metrics-<layout>.counts`.

    A file that cannot be written or read is logged once, until it works again; requests go on.
    While another process holds its lock, the requests of this one are counted in memory.

    Args:
        directory: the folder of the file.
        catalog: returns the current catalog, whose model ids become labels.
    """

    def __init__(self, directory: Path, catalog: Callable[[], Catalog]) -> None:
        # While an upgrade replaces the workers, each version counts in the file of its own layout.
        layout = repr(
            (RequestLabels._fields, [(metric.name, metric.bounds) for metric in DEFINITIONS])
        )
        digest = hashlib.sha256(layout.encode()).hexdigest()[:8]
        self._file = CounterFile(directory / f"metrics-{digest}.counts", width=ROW_WIDTH)
        self._catalog = catalog
        self._works = True
        self._delayed = DelayedAmounts()
        self._retry = BackgroundRetry("mes-count", self._count_delayed)

    def count(self, fields: LogFields, *, route: str | None) -> None:
        """Count one request from the fields of its log line.

        Nothing is raised, because a request must not fail for its count.
        """
        key, amounts = _key(self._labels(fields, route)), increments(fields)
        if not self._add(key, amounts, _COUNT_SECONDS):
            self._delayed.add(key, amounts)
            self._retry.begin()

    def rows(self) -> dict[RequestLabels, array[float]]:
        """Return the counted numbers by labels; METRIC_OFFSETS describes a row."""
        try:
            rows = self._file.read()
        except OSError as exc:
            self._log_failure(exc)
            return {}
        by_labels = {_labels_from_key(key): numbers for key, numbers in rows.items()}
        return {labels: numbers for labels, numbers in by_labels.items() if labels is not None}

    def close(self) -> None:
        """Count what was delayed, if that is possible now, and close the file."""
        self._retry.stop()
        if not self._count_delayed():
            log.warning("metrics_lost", extra={"reason": "the lock is held"})
        self._file.close()

    def _add(
        self, key: bytes, amounts: Iterable[tuple[int, float]], seconds: float | None = None
    ) -> bool:
        """Add to the file; return False if that has to be tried again."""
        try:
            self._file.add(key, amounts, seconds)
            self._works = True
        except LockTimeout:
            return False
        except OSError as exc:
            self._log_failure(exc)
        return True

    def _count_delayed(self) -> bool:
        """Count the delayed requests; return whether none is left."""
        rows = self._delayed.take()
        while rows and self._add(*rows[-1]):
            rows.pop()
        for key, amounts in rows:
            self._delayed.add(key, amounts)
        return not rows

    def _labels(self, fields: LogFields, route: str | None) -> RequestLabels:
        verdict = fields.get("verdict") or ""
        return RequestLabels(
            method=fields["method"] if fields["method"] in _METHODS else OTHER,
            route=route or OTHER,
            operation=fields.get("operation") or "text_completion",
            status=str(fields["status"]),
            code=fields["code"] or "",
            model=self._model_label(fields.get("model")),
            first_verdict=fields.get("first_verdict") or verdict,
            verdict=verdict,
        )

    def _model_label(self, name: str | None) -> str:
        if not name:
            return ""
        try:
            return self._catalog().get(name).id
        except ModelNotFound:
            return OTHER

    def _log_failure(self, error: OSError) -> None:
        if self._works:
            log.warning("metrics_write_failed", extra={"reason": str(error)})
        self._works = False


@lru_cache(maxsize=1024)
def _key(labels: RequestLabels) -> bytes:
    return orjson.dumps(list(labels))


def _labels_from_key(key: bytes) -> RequestLabels | None:
    try:
        return RequestLabels(*orjson.loads(key))
    except (ValueError, TypeError):
        return None  # another program has written into the file
