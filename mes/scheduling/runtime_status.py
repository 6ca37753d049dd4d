"""The status of the runtime as the leader last saw it, for all workers to report."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from mes.domain import PulledModel
from mes.scheduling.serialization import EMPTY, NOTHING
from mes.scheduling.shared_file import Damaged, Handle, SharedFile

# The leader looks no more often.
_READS_EVERY_SECONDS = 0.25
# Older than this, a status says nothing of the present.
_STALE_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class RuntimeStatus:
    """The runtime as it was at `seen_at` (of `time.monotonic()`).

    `state_dir` says what is wrong with the state directory, if anything.
    """

    up: bool = False
    detail: str = "nobody has looked at the runtime yet"
    version: str | None = None
    seen_at: float = 0.0
    in_gpu: bool = False
    pulled: Mapping[str, PulledModel] = field(default_factory=lambda: MappingProxyType({}))
    state_dir: str = ""

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.seen_at < _STALE_AFTER_SECONDS

    @property
    def running(self) -> bool:
        return self.up and self.is_fresh


class RuntimeStatusFile:
    """The status in a file that the workers share, written by the leader alone.

    The lock on the file makes a worker the leader.
    """

    def __init__(self, file: SharedFile) -> None:
        self._handle = Handle(file)
        self._lock = threading.Lock()
        self._status = RuntimeStatus()
        self._entry = NOTHING
        self._next_read = 0.0

    def current(self) -> RuntimeStatus:
        """Return the status that was last written."""
        now = time.monotonic()
        if now < self._next_read:
            return self._status
        with self._lock:
            self._next_read = now + _READS_EVERY_SECONDS
            entry = self._handle.read()
            if entry is not self._entry:
                self._entry, self._status = entry, _decode(entry.content)
            return self._status

    def become_leader(self) -> bool:
        """Become the one worker that may write, until `step_down`; False where another one is."""
        return self._handle.try_lock()

    def step_down(self) -> None:
        """Let another worker be the leader."""
        self._handle.unlock()

    def write(self, status: RuntimeStatus) -> None:
        """Replace the status. Raises OSError where it needs more room than the disk has."""
        with self._lock:
            try:
                self._handle.verify()
            except Damaged:
                self._handle.repair(self._handle.entry)
            self._entry, self._status = self._handle.write(_encode(status)), status

    def close(self) -> None:
        self._handle.close()


def _encode(status: RuntimeStatus) -> bytes:
    return orjson.dumps({**vars(status), "pulled": list(status.pulled.values())})


def _decode(content: bytes) -> RuntimeStatus:
    if content == EMPTY:
        return RuntimeStatus()
    fields = orjson.loads(content)
    pulled = {it["name"]: PulledModel(**it) for it in fields.pop("pulled")}
    return RuntimeStatus(**fields, pulled=pulled)


def check(content: bytes) -> None:
    """Raise ValueError where the file holds a status that this program cannot read."""
    try:
        _decode(content)
    except (TypeError, KeyError, AttributeError) as exc:
        raise ValueError("it is not a runtime status of this version") from exc
