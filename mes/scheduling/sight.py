"""The sight: what the keeper last saw of the runtime, for all workers to report."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import orjson

from mes.domain import PulledModel
from mes.scheduling.files import HeldFile

# The keeper looks no more often, so neither need we.
_LOOKS_EVERY_SECONDS = 0.25
# Older than this, the word of the keeper is no longer worth anything.
_STALE_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class Sight:
    """The runtime, as last seen at `seen_at` (of `time.monotonic()`)."""

    up: bool = False
    detail: str = "nobody has looked at the runtime yet"
    version: str | None = None
    seen_at: float = 0.0
    in_gpu: bool = False
    pulled: Mapping[str, PulledModel] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.seen_at < _STALE_AFTER_SECONDS

    @property
    def running(self) -> bool:
        return self.up and self.is_fresh


class SightFile:
    """`STATE_DIR/runtime.json`: written by the keeper alone, read by every worker."""

    def __init__(self, directory: Path) -> None:
        self._file = HeldFile(directory / "runtime.json")
        self._lock = threading.Lock()
        self._sight = Sight()
        self._next_look = 0.0

    def current(self) -> Sight:
        """What was last seen."""
        now = time.monotonic()
        if now < self._next_look:
            return self._sight
        with self._lock:
            self._next_look = now + _LOOKS_EVERY_SECONDS
            if not self._file.is_current():
                self._sight = _decode(self._file.read())
            return self._sight

    def close(self) -> None:
        self._file.let_go()

    def write(self, sight: Sight) -> None:
        """Tell all workers."""
        with self._lock:
            self._file.replace(orjson.dumps({**vars(sight), "pulled": list(sight.pulled.values())}))
            self._sight = sight


def _decode(content: bytes) -> Sight:
    try:
        fields = orjson.loads(content)
        pulled = {it["name"]: PulledModel(**it) for it in fields.pop("pulled")}
        return Sight(**fields, pulled=pulled)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Sight()  # none yet, or another version's: the keeper writes a new one in a second
