"""The registry of models in memory, and the records that the shared state is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from copy import copy
from dataclasses import dataclass

from cachetools import Cache, LRUCache

# What a ticket waits for.
PERMIT = "permit"
LOAD = "load"
UNLOAD = "unload"

# The phases of a resident.
LOADING = "loading"
READY = "ready"
# In use, but not in the runtime's memory: the runtime may be loading it again for its requests.
MISSING = "missing"

# Why a model in memory is stuck.
DELETED = "deleted"
REPLACED = "replaced"
NOT_UNLOADED = "not_unloaded"


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


@dataclass(slots=True)
class StuckRunner:
    """A model in the runtime's memory that serves no request and cannot be unloaded.

    The `cause` is DELETED or REPLACED (no name of the runtime leads to it any more), or
    NOT_UNLOADED: the runtime was asked to unload it and still lists it.
    """

    model: str
    digest: str
    cause: str
    since: float
    size_bytes: int = 0

    @property
    def key(self) -> str:
        """Its identity: the runtime may list two models of one name."""
        return runner_key(self.model, self.digest)


def runner_key(model: str, digest: str) -> str:
    """Return the identity of a model in the runtime's memory."""
    return f"{model}@{digest}"


@dataclass(slots=True)
class FoundPlaces:
    """How many models the runtime was found to hold, if that is fewer than configured.

    Args:
        limit: The number; 0 while it is only suspected, or tried again.
        evictions: How often the runtime has evicted a model by itself.
        evicted_at: When it last did.
        held: The most models that it held after one of these evictions.
        times: How often the limit was found.
        until: When more models are tried again.
    """

    limit: int = 0
    evictions: int = 0
    evicted_at: float = 0.0
    held: int = 0
    times: int = 0
    until: float = 0.0


@dataclass(slots=True)
class Ticket:
    """A place in the queue.

    With a `task` (LOAD or UNLOAD) its thread has to carry that out now; `victim` is the model to
    unload.
    """

    id: str
    worker: str
    model: str
    wants: str
    arrived_at: float
    number: int
    request: str = ""
    task: str | None = None
    victim: str | None = None
    overtaken_at: float | None = None


@dataclass(slots=True)
class Permit:
    """The right to use a model now. `load_seconds` is the part of the wait that loading took."""

    id: str
    worker: str
    model: str
    arrived_at: float
    granted_at: float
    load_seconds: float


@dataclass(slots=True)
class LoadFailure:
    """Why a model cannot be used, or unloaded, until it has cooled down."""

    failures: int
    until: float
    detail: str

    @property
    def is_over(self) -> bool:
        """Whether the pause was ended by `end_pause`, whatever the time is."""
        return not self.until

    def end_pause(self) -> None:
        self.until = 0.0


@dataclass(slots=True)
class Refusal:
    """The error that a waiting ticket gets instead of a permit, by its `code`."""

    worker: str
    code: str
    detail: str
    retry_after: float | None = None


@dataclass(slots=True)
class ModelStatistics:
    """Numbers about a model since this state began.

    `load_seconds` and `use_seconds` (for how long a permit is held) are moving averages;
    `size_bytes` is what the runtime last reported.
    """

    loads: int = 0
    evictions: int = 0
    load_seconds: float | None = None
    use_seconds: float | None = None
    size_bytes: int = 0


# Arrivals count for about so long.
_ARRIVALS_SECONDS = 30.0


@dataclass(slots=True)
class Arrivals:
    """How often requests for a model arrive: a count in which older arrivals weigh less."""

    at: float
    weight: float = 0.0

    def add(self, now: float) -> None:
        self.weight, self.at = self._weight_at(now) + 1.0, now

    def seconds_between(self, now: float) -> float:
        """Return the usual time between two arrivals."""
        weight = self._weight_at(now)
        return _ARRIVALS_SECONDS / weight if weight > 1e-6 else math.inf

    def _weight_at(self, now: float) -> float:
        return self.weight * math.exp((self.at - now) / _ARRIVALS_SECONDS)


class Registry(LRUCache[str, Resident]):
    """An LRU cache of the models in memory whose `popitem` chooses the model to evict.

    `registry[model]` is the use of a model by a request and makes it the most recently used one.
    Code that decides or reports calls `peek`, or iterates, which leaves the order as it is.

    Args:
        maxsize: How many models may be in memory.
        may_go: Whether a model can be evicted now: not one that is busy, loading or pinned.
        wanted: The models that requests wait for.
    """

    def __init__(
        self, maxsize: int, may_go: Callable[[str], bool], wanted: Callable[[], Set[str]]
    ) -> None:
        super().__init__(maxsize)
        self._may_go = may_go
        self._wanted = wanted

    def __iter__(self) -> Iterator[str]:
        """Iterate over the models, least recently used first."""
        return (resident.model for resident in self.by_last_use())

    def by_last_use(self) -> list[Resident]:
        """Return the residents, least recently used first."""
        if len(self) < 2:
            return self.residents()
        # The cache reveals its order only by the items that it pops, so a copy of it is emptied.
        rest = copy(self)
        return [LRUCache.popitem(rest)[1] for _ in range(len(rest))]

    def residents(self) -> list[Resident]:
        """Return the residents in no particular order, which is cheaper."""
        return [Cache.__getitem__(self, model) for model in Cache.__iter__(self)]

    def peek(self, model: str) -> Resident:
        """Return the resident without making it recently used. Raises KeyError."""
        return Cache.__getitem__(self, model)

    def evictable(self) -> list[str]:
        """Return the models that can be evicted now, least recently used first."""
        return [model for model in self if self._may_go(model)]

    def victim(self) -> str | None:
        """Return the model that `popitem` would remove now, or None.

        It is the least recently used one that no request waits for; if requests wait for all
        that may go, the least recently used of those.
        """
        wanted = self._wanted()
        return min(self.evictable(), key=wanted.__contains__, default=None)

    def popitem(self) -> tuple[str, Resident]:
        """Remove the model that is to be evicted. Raises KeyError if none can be evicted."""
        victim = self.victim()
        if victim is None:
            raise KeyError("every model in memory is busy, loading or pinned")
        return victim, self.pop(victim)
