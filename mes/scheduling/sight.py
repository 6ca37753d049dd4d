"""The sight: what the keeper last saw, for all workers to report."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from mes.domain import PulledModel
from mes.shared import Document, Memory

# The keeper looks no more often, so neither need we.
_LOOKS_EVERY_SECONDS = 0.25
# Older than this, the word of the keeper is no longer worth anything.
_STALE_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class Sight:
    """The runtime, as last seen at `seen_at` (of `time.monotonic()`).

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


class SharedSight:
    """The sight in the memory that the workers share: written by the keeper alone.

    Its lock says who that is.
    """

    def __init__(self, memory: Memory) -> None:
        self._document = Document(memory)
        self._lock = threading.Lock()
        self._sight = Sight()
        self._version = 0
        self._next_wakeup = 0.0

    def current(self) -> Sight:
        """What was last seen."""
        now = time.monotonic()
        if now < self._next_wakeup:
            return self._sight
        with self._lock:
            self._next_wakeup = now + _LOOKS_EVERY_SECONDS
            if self._document.version() != self._version:
                self._version, content = self._document.read()
                self._sight = _decode(content)
            return self._sight

    def become_keeper(self) -> bool:
        """Be the one who may write, until `resign`; False where somebody else is."""
        return self._document.lock_if_free()

    def resign(self) -> None:
        """Let another worker be the keeper."""
        self._document.unlock()

    def write(self, sight: Sight) -> None:
        """Tell all workers."""
        with self._lock:
            content = orjson.dumps({**vars(sight), "pulled": list(sight.pulled.values())})
            self._version, self._sight = self._document.write(content), sight

    def close(self) -> None:
        self._document.close()


def _decode(content: bytes) -> Sight:
    fields = orjson.loads(content)
    pulled = {it["name"]: PulledModel(**it) for it in fields.pop("pulled")}
    return Sight(**fields, pulled=pulled)
