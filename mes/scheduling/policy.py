"""The policy: given the state, what to do next. No clock, no lock, no I/O of its own.

Whoever changes the state calls `settle`, which decides and applies until nothing more can be done.
The rules, in the order they are tried:

1. Models drain for those who have waited long enough for a place in memory, and only for them
   (mes/scheduling/turns.py).
2. The first in a model's queue gets a permit while the model is ready and has fewer than
   `max_concurrent` in flight; of a model that drains, only if it came early enough.
3. Whoever waits for something that has come true by itself is told so.
4. An unload that was asked for begins once its model is idle.
5. The oldest ticket whose model is not in memory loads it, if there is room; if there is none, it
   sees out an idle model: one nobody waits for, else the least recently used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mes.scheduling import turns
from mes.scheduling.limits import Limits
from mes.scheduling.records import LOAD, PERMIT, UNLOAD, Ticket
from mes.scheduling.state import State, load_seconds
from mes.scheduling.turns import NOBODY


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
    """The ticket gets the duty to unload the model that it asked to be unloaded."""

    ticket: Ticket
    victim: str

    def apply(self, state: State, now: float) -> None:
        state.begin_unload(self.ticket, self.victim, now)


@dataclass(frozen=True, slots=True)
class Evict:
    """The ticket gets the duty to unload `victim`, the model that `registry.popitem` removes."""

    ticket: Ticket
    victim: str

    def apply(self, state: State, now: float) -> None:
        state.evict(self.ticket, now)


@dataclass(frozen=True, slots=True)
class Drain:
    """These models drain from now on, and no others."""

    models: frozenset[str]
    ticket: None = None

    def apply(self, state: State, now: float) -> None:
        for resident in state.registry.residents():
            resident.draining = resident.model in self.models


@dataclass(frozen=True, slots=True)
class CloseLine:
    """Whoever has a higher number comes after all others; with 0 the line is open again."""

    at: int
    ticket: None = None

    def apply(self, state: State, now: float) -> None:
        state.closed_at = self.at


Decision = CloseLine | Grant | Dismiss | Load | Unload | Evict | Drain


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
    if not state.tickets and not state.draining and not state.closed_at:
        return None
    line = list(turns.contenders(state))
    waiting = [ticket for ticket in state.tickets.values() if ticket.duty is None]
    barriers = _barriers(state, waiting, turns.barrier(state, line, now, limits))
    return (
        _end_of_line(state, line, now, limits)
        or _drain(state, len(turns.pressing(state, line, now, limits)))
        or next(_grants(state, waiting, barriers, limits), None)
        or next(_dismissals(state, waiting), None)
        or next(_unloads_asked_for(state, waiting), None)
        or _room_for_the_oldest(state, line, limits)
    )


def queue_seconds(state: State, ticket: Ticket, now: float) -> float:
    """How long the ticket has waited its turn; the loading of its own model does not count."""
    waited = now - ticket.arrived_at
    if ticket.model in state.registry:
        waited -= load_seconds(ticket, state.registry.peek(ticket.model), now)
    return waited


def _end_of_line(state: State, line: list[Ticket], now: float, limits: Limits) -> CloseLine | None:
    if turns.should_close(state, line, now, limits):
        return CloseLine(state.granted_up_to)
    return CloseLine(0) if turns.should_open(state, line) else None


def _drain(state: State, pressing: int) -> Drain | None:
    models = frozenset(turns.victims(state, pressing))
    return Drain(models) if models != state.draining else None


def _barriers(state: State, waiting: list[Ticket], barrier: float) -> dict[str, float]:
    """Which models serve only those with a number below a certain one."""
    barriers: dict[str, float] = dict.fromkeys(state.draining, barrier)
    for ticket in waiting:
        if ticket.wants == UNLOAD:
            barriers[ticket.model] = min(ticket.number, barriers.get(ticket.model, NOBODY))
    return barriers


def _grants(
    state: State, waiting: list[Ticket], barriers: Mapping[str, float], limits: Limits
) -> Iterator[Grant]:
    for ticket in _first_of_each_model(waiting):
        model = ticket.model
        if (
            state.ready(model)
            and ticket.number < barriers.get(model, NOBODY)
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
        gone = ticket.wants == UNLOAD and not state.in_memory(ticket.model)
        if loaded or gone:
            yield Dismiss(ticket)


def _unloads_asked_for(state: State, waiting: list[Ticket]) -> Iterator[Unload]:
    for ticket in waiting:
        model = ticket.model
        if ticket.wants == UNLOAD and state.ready(model) and not state.in_flight(model):
            yield Unload(ticket, model)


def _room_for_the_oldest(state: State, line: list[Ticket], limits: Limits) -> Decision | None:
    if not line:
        return None
    ticket = line[0]
    if limits.has_room_for(state, ticket.model):
        return Load(ticket)
    victim = state.registry.victim()
    return Evict(ticket, victim) if victim is not None else None
