"""The policy: given the state, what to do next. No clock, no lock, no I/O of its own.

Whoever changes the state calls `settle`, which decides and applies until nothing more can be done,
and returns whom to wake. The rules, in the order they are tried:

1. The first in a model's queue gets a permit while the model is ready, not draining and has fewer
   than `max_concurrent` in flight.
2. Whoever waits for something that has come true by itself is told so.
3. An unload that was asked for begins once its model is idle.
4. The oldest ticket whose model is not in memory loads it, if there is a place; if there is none,
   it sees out a model that may go: one nobody waits for, else the least recently used.

A model drains (grants nothing to those who came later) when a person asked to unload it, or when
somebody has waited for a place in memory longer than the patience.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mes.domain import ModelSpec
from mes.scheduling.state import LOAD, PERMIT, UNLOAD, State, Ticket


@dataclass(frozen=True)
class Limits:
    """What the policy must keep to; `models` by the name the runtime knows them by."""

    max_loaded: int
    patience_seconds: float
    models: Mapping[str, ModelSpec] = field(default_factory=dict)

    @cached_property
    def pinned(self) -> frozenset[str]:
        return frozenset(spec.tag for spec in self.models.values() if spec.pinned)

    def max_concurrent(self, model: str) -> int:
        # A model that has left the catalog while somebody waited for it is served one by one.
        return self.models[model].max_concurrent if model in self.models else 1


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket becomes a permit."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.grant(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Dismiss:
    """What the ticket waited for has come true."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.leave(self.ticket.id, now)


@dataclass(frozen=True, slots=True)
class Load:
    """The ticket gets a place in memory for its model, and the duty to load it."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.begin_load(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Unload:
    """The ticket gets the duty to see a model out of memory."""

    ticket: Ticket
    victim: str

    def apply(self, state: State, now: float) -> None:
        state.begin_unload(self.ticket, self.victim)


Decision = Grant | Dismiss | Load | Unload


def settle(state: State, now: float, limits: Limits) -> list[Decision]:
    """Decide and apply until nothing more can be done; the decisions, in order."""
    state.pinned = limits.pinned
    made: list[Decision] = []
    while (decision := decide(state, now, limits)) is not None:
        decision.apply(state, now)
        made.append(decision)
    return made


def decide(state: State, now: float, limits: Limits) -> Decision | None:
    """The next thing to do, if there is any."""
    if not state.tickets:
        return None
    waiting = [ticket for ticket in state.tickets.values() if ticket.duty is None]
    draining = _draining(state, waiting, now, limits)
    return (
        next(_grants(state, waiting, draining, limits), None)
        or next(_dismissals(state, waiting), None)
        or next(_unloads_asked_for(state, waiting), None)
        or _room_for_the_oldest(state, waiting)
    )


def queue_seconds(state: State, ticket: Ticket, now: float) -> float:
    """How long the ticket has waited its turn; the loading of its own model does not count."""
    waited = now - ticket.arrived_at
    if ticket.model in state.registry:
        resident = state.registry[ticket.model]
        loaded_at = now if resident.ready_at is None else resident.ready_at
        waited -= max(0.0, loaded_at - max(ticket.arrived_at, resident.since))
    return waited


def _grants(
    state: State, waiting: list[Ticket], draining: Mapping[str, float], limits: Limits
) -> Iterator[Grant]:
    for ticket in _first_of_each_model(waiting):
        model = ticket.model
        if (
            state.ready(model)
            and ticket.number < draining.get(model, float("inf"))
            and state.in_flight(model) < limits.max_concurrent(model)
        ):
            yield Grant(ticket)


def _first_of_each_model(waiting: list[Ticket]) -> Iterator[Ticket]:
    seen = set()
    for ticket in waiting:
        if ticket.wants == PERMIT and ticket.model not in seen:
            seen.add(ticket.model)
            yield ticket


def _dismissals(state: State, waiting: list[Ticket]) -> Iterator[Dismiss]:
    for ticket in waiting:
        loaded = ticket.wants == LOAD and state.ready(ticket.model)
        gone = ticket.wants == UNLOAD and not _in_memory(state, ticket.model)
        if loaded or gone:
            yield Dismiss(ticket)


def _unloads_asked_for(state: State, waiting: list[Ticket]) -> Iterator[Unload]:
    for ticket in waiting:
        model = ticket.model
        if ticket.wants == UNLOAD and state.ready(model) and not state.in_flight(model):
            yield Unload(ticket, model)


def _room_for_the_oldest(state: State, waiting: list[Ticket]) -> Decision | None:
    for ticket in _waiting_for_memory(state, waiting):
        if state.places_free > 0:
            return Load(ticket)
        victim = _victim(state, waiting)
        if victim is not None:
            return Unload(ticket, victim)
    return None


def _waiting_for_memory(state: State, waiting: list[Ticket]) -> Iterator[Ticket]:
    """The first ticket of each model that is not in memory and that nobody is bringing in."""
    taken_care_of = {t.model for t in state.tickets.values() if t.duty and t.wants != UNLOAD}
    for ticket in waiting:
        if ticket.wants == UNLOAD or ticket.model in taken_care_of:
            continue
        taken_care_of.add(ticket.model)
        if not _in_memory(state, ticket.model):
            yield ticket


def _victim(state: State, waiting: list[Ticket]) -> str | None:
    evictable = state.registry.evictable()
    wanted = {ticket.model for ticket in waiting}
    return next((model for model in evictable if model not in wanted), None) or next(
        iter(evictable), None
    )


def _in_memory(state: State, model: str) -> bool:
    return model in state.registry or model in state.leaving


def _draining(state: State, waiting: list[Ticket], now: float, limits: Limits) -> dict[str, float]:
    """Models that let in nobody who came after the given number."""
    draining: dict[str, float] = {
        ticket.model: ticket.number for ticket in reversed(waiting) if ticket.wants == UNLOAD
    }
    if _patience_is_over(state, waiting, now, limits):
        victim = _busy_victim(state, waiting)
        if victim is not None:
            draining[victim] = 0
    return draining


def _patience_is_over(state: State, waiting: list[Ticket], now: float, limits: Limits) -> bool:
    oldest = next(_waiting_for_memory(state, waiting), None)
    if oldest is None or state.places_free > 0 or state.leaving:
        return False
    # Each model that comes in keeps its place for a while, or two long queues would swap at
    # every request.
    came_in = [state.registry[m].ready_at or now for m in state.registry]
    return now - max(oldest.arrived_at, *came_in) > limits.patience_seconds


def _busy_victim(state: State, waiting: list[Ticket]) -> str | None:
    candidates = [m for m in state.registry if state.ready(m) and m not in state.pinned]
    wanted = {ticket.model for ticket in waiting}
    return next((model for model in candidates if model not in wanted), None) or next(
        iter(candidates), None
    )
