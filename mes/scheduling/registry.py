"""The registry: the models in memory, least recently used first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cachetools import Cache, LRUCache

LOADING = "loading"
READY = "ready"
# In use, but not in the runtime's memory: it may be loading the model anew for those who use it.
MISSING = "missing"


@dataclass(slots=True)
class Resident:
    """A model that has a place in memory. Times are of `time.monotonic()`, alike in all workers."""

    model: str
    phase: str
    since: float
    ticket: str | None = None
    ready_at: float | None = None
    used_at: float = 0.0
    draining: bool = False
    digest: str | None = None
    quantization: str | None = None
    size_bytes: int = 0
    vram_bytes: int = 0


class Registry(LRUCache[str, Resident]):
    """An LRU cache that never drops a model which may not go: its `popitem` passes over those.

    Looking a model up does not make it recently used; `touch` does.
    """

    def __init__(self, maxsize: int, may_go: Callable[[str], bool]) -> None:
        super().__init__(maxsize)
        self._may_go = may_go

    def __getitem__(self, model: str) -> Resident:
        return Cache.__getitem__(self, model)

    def touch(self, model: str, now: float) -> None:
        """Make the model the most recently used."""
        resident = self.pop(model)
        resident.used_at = now
        self[model] = resident

    def evictable(self) -> list[str]:
        """The models that may go, least recently used first."""
        return [model for model in self if self._may_go(model)]

    def popitem(self) -> tuple[str, Resident]:
        """Remove the least recently used model that may go; KeyError where none may."""
        for model in self.evictable():
            return model, self.pop(model)
        raise KeyError("every model in memory is busy, loading or pinned")
