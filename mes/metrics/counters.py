"""Counters of requests, kept in one file that all workers add to."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import orjson

from mes.config.catalog import Catalog
from mes.errors import ModelNotFound
from mes.metrics.definitions import DEFINITIONS, ROW_WIDTH, Facts, RequestLabels, increments
from mes.scheduling.files import FileLock

# The ledger: rows of numbers that all workers add to, in one file under one lock.

# Divides a page of memory: a write within one page is done or not done, also by who is killed.
_RECORD = 2048


class CounterFile:
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
        records = (content[at : at + _RECORD] for at in _record_offsets(content))
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
        places = _record_offsets(content)
        self._places = {content[at : at + self._key_bytes]: at for at in places}
        return self._places.setdefault(key, places.stop)

    def _numbers(self, record: bytes) -> array[float]:
        return array("d", record[self._key_bytes :])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _record_offsets(content: bytes) -> range:
    return range(0, len(content) // _RECORD * _RECORD, _RECORD)


# Observed: what the requests were like, counted from the facts of their log lines.

log = logging.getLogger(__name__)

# Whatever callers may make up: a model, a path, a method.
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestCounters:
    """Counts the requests of all workers, in `STATE_DIR/metrics-<layout>.counts`."""

    def __init__(self, directory: Path, catalog: Callable[[], Catalog]) -> None:
        # During a reload into another version both count, each in rows of its own layout.
        layout = repr(
            (RequestLabels._fields, [(measure.name, measure.bounds) for measure in DEFINITIONS])
        )
        digest = hashlib.sha256(layout.encode()).hexdigest()[:8]
        self._counter_file = CounterFile(directory / f"metrics-{digest}.counts", width=ROW_WIDTH)
        self._catalog = catalog
        self._well = True

    def note(self, facts: Facts, *, route: str | None) -> None:
        """Count one request. Raises nothing: the request is worth more than its count."""
        try:
            self._counter_file.add(_key(self._kind(facts, route)), increments(facts))
            self._well = True
        except OSError as exc:
            self._complain(exc)

    def rows(self) -> dict[RequestLabels, array[float]]:
        """What has been counted, by the kind of request."""
        try:
            kept = self._counter_file.read()
        except OSError as exc:
            self._complain(exc)
            return {}
        read = {_labels_from_key(key): numbers for key, numbers in kept.items()}
        return {kind: numbers for kind, numbers in read.items() if kind is not None}

    def close(self) -> None:
        """Let go of the file."""
        self._counter_file.close()

    def _kind(self, facts: Facts, route: str | None) -> RequestLabels:
        verdict = facts.get("verdict") or ""
        return RequestLabels(
            method=facts["method"] if facts["method"] in _METHODS else OTHER,
            route=route or OTHER,
            operation=facts.get("operation") or "text_completion",
            status=str(facts["status"]),
            code=facts["code"] or "",
            model=self._model(facts.get("model")),
            first_verdict=facts.get("first_verdict") or verdict,
            verdict=verdict,
        )

    def _model(self, name: str | None) -> str:
        if not name:
            return ""
        try:
            return self._catalog().get(name).id
        except ModelNotFound:
            return OTHER

    def _complain(self, error: OSError) -> None:
        if self._well:
            log.warning("metrics_not_kept", extra={"reason": str(error)})
        self._well = False


@lru_cache(maxsize=1024)
def _key(kind: RequestLabels) -> bytes:
    return orjson.dumps(list(kind))


def _labels_from_key(key: bytes) -> RequestLabels | None:
    try:
        return RequestLabels(*orjson.loads(key))
    except (ValueError, TypeError):
        return None  # somebody else has written into the file
