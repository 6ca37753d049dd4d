"""Fairness between models, the limits it respects, and estimates of the time in the queue.

A request is *overtaken* when a permit goes to one that came later, while it waits for its model to
get a place in memory. Its clock runs from then on, except while models are being swapped.

Before the clock reaches the patience, a *batch boundary* is set: all requests that came before the
last permit are served before any that came after it. The models take turns at their part of the
batch, so that requests are still grouped inside it. The boundary is set so early that the parts
ahead, as long as requests usually take, fit in:

    A serves       B, its part of the batch     C, its part of the batch, and on
    |--------------|----------------------------|-----------------------------------
              boundary set                boundary removed

Requests may take longer than usual. Therefore a request that has been overtaken for the whole
patience is *starving* and is overtaken no more: a model that drains for it serves only requests
that came before it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Protocol

from mes.domain import ModelSpec
from mes.scheduling import runtime_places, stuck_models
from mes.scheduling.registry import UNLOAD, Ticket
from mes.scheduling.state import State

NO_BARRIER = float("inf")
# Where the operator has set no patience, each turn is long enough that under full load about a
# tenth of the time goes into loading.
_LOADS_PER_TURN = 10.0


@dataclass(frozen=True)
class Limits:
    """The limits of the operator and of the catalog.

    Args:
        max_loaded: How many models may be in memory.
        patience_seconds: For how long a request may be overtaken; None for ten times the slowest
            measured load, between the two bounds.
        patience_bounds: The shortest and the longest patience, in seconds.
        memory_bytes: How much memory models may take up together; None for no limit.
        models: The models of the catalog, by the name that the runtime knows them by.
        slots: How many requests the runtime serves at a time, by model, where that is known.
    """

    max_loaded: int
    patience_seconds: float | None = None
    patience_bounds: tuple[float, float] = (20.0, 300.0)
    memory_bytes: int | None = None
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def pinned(self) -> frozenset[str]:
        return frozenset(spec.tag for spec in self.models.values() if spec.pinned)

    def max_concurrent(self, model: str) -> int:
        """Return how many requests may run: no more than the runtime serves, or they wait there."""
        # A model that left the catalog while requests waited for it serves them one by one.
        configured = self.models[model].max_concurrent if model in self.models else 1
        return min(configured, self.slots.get(model, configured))

    def has_slot_for(self, state: State, model: str) -> bool:
        """Return whether one more request of the model may run. Names of one place share slots."""
        if state.in_flight(model) >= self.max_concurrent(model):
            return False
        slots = self.slots.get(model)
        return slots is None or not state.aliases or state.in_flight_at(model) < slots

    def capacity(self, spec: ModelSpec) -> int:
        """Return how many requests may run or wait."""
        return self.max_concurrent(spec.tag) + spec.max_queue

    def patience(self, state: State, waiting_models: int = 1) -> float:
        """Return for how many seconds a request may be overtaken, with so many models waiting."""
        if self.patience_seconds is not None:
            return self.patience_seconds
        slowest = max((each.load_seconds or 0.0 for each in state.statistics.values()), default=0.0)
        least, most = self.patience_bounds
        return min(most, max(least, _LOADS_PER_TURN * slowest * waiting_models))

    def usual_seconds(self, state: State, model: str | None = None) -> float:
        """Return how long a request usually takes: on this model, or if unknown on any."""
        statistics = state.statistics.get(model) if model is not None else None
        if statistics is not None and statistics.use_seconds is not None:
            return statistics.use_seconds
        known = [each.use_seconds for each in state.statistics.values() if each.use_seconds]
        return sum(known) / len(known) if known else 0.0

    def size_bytes(self, state: State, model: str) -> int:
        """Return the model's size: as the runtime reported it, else of the catalog, else 0."""
        statistics, spec = state.statistics.get(state.place_of(model)), self.models.get(model)
        if statistics is not None and statistics.size_bytes:
            return statistics.size_bytes
        gigabytes = spec and (spec.min_memory_gb or spec.size_gb)
        return int(gigabytes * 1e9) if gigabytes else 0

    def has_room_for(self, state: State, model: str) -> bool:
        """Return whether the model may be loaded now."""
        if state.places_free <= 0:
            return False
        if self.memory_bytes is None:
            return True
        held = [*state.registry, *state.unloading, model]
        needed = sum(self.size_bytes(state, each) for each in held)
        return needed + stuck_models.size_bytes(state) <= self.memory_bytes

    def why_never(self, state: State, model: str) -> str | None:
        """Return why the model can never be loaded, or None if it can once others are unloaded."""
        if reason := stuck_models.places_lost(state, map(state.place_of, self.pinned)):
            return reason
        kept = stuck_models.kept_places(state, map(state.place_of, self.pinned))
        if len(kept) >= state.places:
            reason = runtime_places.problem(state)
            return (
                f"pinned models take up all {state.places} places in memory; "
                f"unpin one{f', or: {reason}' if reason else ' or raise MAX_LOADED_MODELS'}"
            )
        return self._why_too_large(state, kept, model)

    def _why_too_large(self, state: State, kept: set[str], model: str) -> str | None:
        needed = sum(self.size_bytes(state, each) for each in {*kept, state.place_of(model)})
        needed += stuck_models.size_bytes(state)
        if self.memory_bytes is None or needed <= self.memory_bytes:
            return None
        stuck = "".join(f"; {problem}" for problem in stuck_models.problems(state))
        return (
            f"it needs {needed / 1e9:.1f} GB with the {'stuck and ' * bool(stuck)}pinned models, "
            f"and MAX_MODEL_MEMORY_GB is {self.memory_bytes / 1e9:.1f}{stuck}"
        )


Slots = tuple[tuple[str, int], ...]
"""The slots of each model for which they are known."""


class ModelList(Protocol):
    """The models that may be run; a changed list is another object."""

    @property
    def enabled(self) -> tuple[ModelSpec, ...]: ...

    def __hash__(self) -> int: ...


def current_limits(
    limits: Limits, models: Callable[[], ModelList], slots: Callable[[], Slots]
) -> Callable[[], Limits]:
    """Return a function that returns `limits` with the models and the slots that are known then."""

    @lru_cache(maxsize=1)
    def complete(current: ModelList, known: Slots) -> Limits:
        by_tag = {spec.tag: spec for spec in current.enabled}
        return replace(limits, models=by_tag, slots=dict(known))

    return lambda: complete(models(), slots())


def waiting_models(state: State) -> Iterator[Ticket]:
    """Yield the first ticket of each place that is needed and that no ticket is getting."""
    place_of = state.place_of
    seen = {place_of(t.model) for t in state.tickets.values() if t.task and t.wants != UNLOAD}
    for ticket in state.tickets.values():
        if ticket.wants == UNLOAD or ticket.task is not None or place_of(ticket.model) in seen:
            continue
        seen.add(place_of(ticket.model))
        if not state.in_memory(ticket.model):
            yield ticket


def should_set_boundary(state: State, waiting: list[Ticket], now: float, limits: Limits) -> bool:
    """Return whether the batch must end now, to serve each waiting model within the patience."""
    if state.batch_boundary or not waiting:
        return False
    # Each model that makes room first finishes the requests that it has begun.
    patience, ahead = limits.patience(state, len(waiting)), limits.usual_seconds(state)
    parts = Counter(t.model for t in state.tickets.values() if t.number <= state.granted_up_to)
    for ticket in waiting:
        overtaken = _overtaken_seconds(state, ticket, now)
        if overtaken >= 0 and overtaken + ahead >= patience:
            return True
        rounds = 1 + math.ceil(parts[ticket.model] / limits.max_concurrent(ticket.model))
        ahead += rounds * limits.usual_seconds(state, ticket.model)
    return False


def should_remove_boundary(state: State, waiting: list[Ticket]) -> bool:
    """Return whether every request before the boundary has a place in memory."""
    return bool(state.batch_boundary) and all(t.number > state.batch_boundary for t in waiting)


def starving(state: State, waiting: list[Ticket], now: float, limits: Limits) -> list[Ticket]:
    """Return the waiting tickets for which models have to make room now, oldest first."""
    patience = limits.patience(state, len(waiting))
    return [
        ticket
        for ticket in waiting
        if ticket.number <= state.batch_boundary
        or _overtaken_seconds(state, ticket, now) >= patience
    ]


def barrier(state: State, waiting: list[Ticket], now: float, limits: Limits) -> float:
    """Return the ticket number from which on a model that drains serves no request."""
    patience = limits.patience(state, len(waiting))
    if state.surplus:
        return 0
    overdue = [t.number for t in waiting if _overtaken_seconds(state, t, now) >= patience]
    overdue += _stalled_tickets(state)
    return min([*overdue, state.batch_boundary + 1 if state.batch_boundary else NO_BARRIER])


def models_to_drain(state: State, count: int) -> list[str]:
    """Return the models that make room for so many waiting ones.

    All make room for a load that has stalled, and some where the runtime holds fewer models. One
    that drains already continues to drain, or no drain would ever end; then come models that no
    request waits for, then the least recently used.
    """
    surplus, is_stalled = state.surplus, bool(state.stalled) and any(state.stalled.values())
    if not count and not surplus and not is_stalled:
        return []
    ready = [m for m in state.registry if state.ready(m)]
    if is_stalled:
        return ready
    wanted = state.wanted
    candidates = ready if surplus else [m for m in ready if not state.kept(m)]
    # A stable sort: within equals the order stays that of the last use.
    candidates.sort(key=lambda m: (state.kept(m), not state.registry.peek(m).draining, m in wanted))
    return candidates[: count + surplus]


def _stalled_tickets(state: State) -> list[int]:
    """Return the numbers of the tickets whose loads have stalled."""
    if not state.stalled:
        return []
    loading = {place for place, waits in state.stalled.items() if waits}
    tickets = {state.registry.peek(place).ticket or "" for place in loading & set(state.registry)}
    return [state.tickets[each].number for each in tickets & state.tickets.keys()]


def _overtaken_seconds(state: State, ticket: Ticket, now: float) -> float:
    if ticket.overtaken_at is None:
        return -1.0
    return (now if state.swap_began is None else state.swap_began) - ticket.overtaken_at
