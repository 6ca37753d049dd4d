"""The policy: given the state, the next thing to do. No clock, no lock, no I/O of its own.

Code that changes the state calls `settle`, which decides and applies until nothing more can be
done. The rules, in the order they are tried:

1. Models drain for requests that have waited long enough for a place in memory, and only for them
   (mes/scheduling/fairness.py).
2. The first in a model's queue gets a permit while the model is ready and has fewer than
   `max_concurrent` in flight; of a model that drains, only if it came early enough.
3. A ticket whose load or unload has happened by itself is removed.
4. An unload that a user asked for begins once its model is idle.
5. The oldest ticket whose model is not in memory loads it, if there is room; if there is none, it
   evicts the model that the registry chooses: idle, one that no request waits for, else the least
   recently used. If no place can ever become free, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mes.errors import ModelUnavailable
from mes.scheduling import fairness
from mes.scheduling.fairness import NO_BARRIER, Limits
from mes.scheduling.registry import LOAD, PERMIT, UNLOAD, Refusal, Ticket
from mes.scheduling.state import State, load_seconds


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket becomes a permit."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.grant(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Dismiss:
    """The load or unload that the ticket waited for has happened by itself."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.leave(self.ticket.id, now)


@dataclass(frozen=True, slots=True)
class Load:
    """The ticket gets a place in memory for its model, and the task to load it."""

    ticket: Ticket

    def apply(self, state: State, now: float) -> None:
        state.begin_load(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Unload:
    """The ticket gets the task to unload the model that a user asked to be unloaded."""

    ticket: Ticket
    victim: str

    def apply(self, state: State, now: float) -> None:
        state.begin_unload(self.ticket, self.victim, now)


@dataclass(frozen=True, slots=True)
class Evict:
    """The ticket gets the task to unload `victim`, the model that `registry.popitem` removes."""

    ticket: Ticket
    victim: str

    def apply(self, state: State, now: float) -> None:
        state.evict(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The ticket is refused, because no place in memory can become free for it."""

    ticket: Ticket
    detail: str

    def apply(self, state: State, now: float) -> None:
        refusal = Refusal(self.ticket.worker, ModelUnavailable.code, self.detail)
        state.refuse(self.ticket, refusal)


@dataclass(frozen=True, slots=True)
class Drain:
    """These models drain from now on, and no others."""

    models: frozenset[str]
    ticket: None = None

    def apply(self, state: State, now: float) -> None:
        for resident in state.registry.residents():
            resident.draining = resident.model in self.models


@dataclass(frozen=True, slots=True)
class SetBatchBoundary:
    """Requests with a higher number come after all others; 0 removes the boundary."""

    at: int
    ticket: None = None

    def apply(self, state: State, now: float) -> None:
        state.batch_boundary = self.at


Decision = SetBatchBoundary | Grant | Dismiss | Load | Unload | Evict | Refuse | Drain


def settle(state: State, now: float, limits: Limits) -> list[Decision]:
    """Decide and apply until nothing more can be done; return the decisions in order."""
    state.pinned = frozenset(map(state.place_of, limits.pinned))
    decisions: list[Decision] = []
    while (decision := decide(state, now, limits)) is not None:
        decision.apply(state, now)
        decisions.append(decision)
    return decisions


def decide(state: State, now: float, limits: Limits) -> Decision | None:
    """Return the next thing to do, or None."""
    if not state.tickets and not state.draining and not state.batch_boundary:
        return None
    waiting_models = list(fairness.waiting_models(state))
    waiting = [ticket for ticket in state.tickets.values() if ticket.task is None]
    barriers = _barriers(state, waiting, fairness.barrier(state, waiting_models, now, limits))
    return (
        _batch_boundary(state, waiting_models, now, limits)
        or _drain(state, len(fairness.starving(state, waiting_models, now, limits)))
        or next(_grants(state, waiting, barriers, limits), None)
        or next(_dismissals(state, waiting), None)
        or next(_requested_unloads(state, waiting), None)
        or _place_for_the_oldest(state, waiting_models, limits)
    )


def queue_seconds(state: State, ticket: Ticket, now: float) -> float:
    """Return how long the ticket has waited, without the loading of its own model."""
    waited = now - ticket.arrived_at
    if (resident := state.resident(ticket.model)) is not None:
        waited -= load_seconds(ticket, resident, now)
    return waited


def _batch_boundary(
    state: State, waiting_models: list[Ticket], now: float, limits: Limits
) -> SetBatchBoundary | None:
    if fairness.should_set_boundary(state, waiting_models, now, limits):
        return SetBatchBoundary(state.granted_up_to)
    return SetBatchBoundary(0) if fairness.should_remove_boundary(state, waiting_models) else None


def _drain(state: State, starving: int) -> Drain | None:
    models = frozenset(fairness.models_to_drain(state, starving))
    return Drain(models) if models != state.draining else None


def _barriers(state: State, waiting: list[Ticket], barrier: float) -> dict[str, float]:
    """Return the places that serve only requests with a number below a certain one."""
    barriers: dict[str, float] = dict.fromkeys(state.draining, barrier)
    for ticket in waiting:
        if ticket.wants == UNLOAD:
            place = state.place_of(ticket.model)
            barriers[place] = min(ticket.number, barriers.get(place, NO_BARRIER))
    return barriers


def _grants(
    state: State, waiting: list[Ticket], barriers: Mapping[str, float], limits: Limits
) -> Iterator[Grant]:
    for ticket in _first_of_each_model(waiting):
        model = ticket.model
        if (
            state.ready(model)
            and ticket.number < barriers.get(state.place_of(model), NO_BARRIER)
            and limits.has_slot_for(state, model)
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
        gone = ticket.wants == UNLOAD and not state.in_memory(ticket.model)
        if loaded or gone:
            yield Dismiss(ticket)


def _requested_unloads(state: State, waiting: list[Ticket]) -> Iterator[Unload]:
    for ticket in waiting:
        place = state.place_of(ticket.model)
        if ticket.wants == UNLOAD and state.ready(place) and not state.in_use(place):
            yield Unload(ticket, place)


def _place_for_the_oldest(
    state: State, waiting_models: list[Ticket], limits: Limits
) -> Decision | None:
    if not waiting_models:
        return None
    ticket = waiting_models[0]
    if limits.has_room_for(state, ticket.model):
        return Load(ticket)
    victim = state.registry.victim()
    if victim is not None:
        return Evict(ticket, victim)
    reason = limits.why_never(state, ticket.model)
    return Refuse(ticket, reason) if reason is not None else None
