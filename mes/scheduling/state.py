"""The state all workers share: one small document and the changes it knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mes.scheduling.records import (
    LOAD,
    PERMIT,
    UNLOAD,
    Permit,
    Refusal,
    Tally,
    Ticket,
    Trouble,
)
from mes.scheduling.registry import LOADING, MISSING, READY, Registry, Resident


@dataclass
class State:
    """Who uses which model, who waits, and what is in memory.

    `leaving` names the models on their way out of memory, with the ticket that sees to it: they
    still take up a place. `residency` counts every change of what is in memory, so that a look at
    the runtime taken before such a change is known to be stale. `closed_at` is the number at which
    the line is closed, or 0 (mes/scheduling/turns.py); `swap_began` is when models began to come
    and go, while they do.
    """

    max_loaded: int
    pinned: frozenset[str] = frozenset()
    number: int = 0
    residency: int = 0
    granted_up_to: int = 0
    closed_at: int = 0
    swap_began: float | None = None
    registry: Registry = field(init=False)
    leaving: dict[str, str] = field(default_factory=dict)
    permits: dict[str, Permit] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    preloaded: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(self.max_loaded, self._may_go, lambda: self.wanted)

    # Reading

    def in_flight(self, model: str) -> int:
        return sum(permit.model == model for permit in self.permits.values())

    def requests(self, model: str) -> int:
        """How many use the model or wait for a permit on it, whoever is loading it included."""
        waiting = sum(t.model == model and t.wants == PERMIT for t in self.tickets.values())
        return self.in_flight(model) + waiting

    def resident(self, model: str) -> Resident | None:
        """Return the model's entry in the registry, or None where it has no place in memory."""
        return self.registry.peek(model) if model in self.registry else None

    def ready(self, model: str) -> bool:
        return model in self.registry and self.registry.peek(model).phase == READY

    def in_memory(self, model: str) -> bool:
        """Does the model take up a place, be it coming, there or leaving?"""
        return model in self.registry or model in self.leaving

    def missing(self, model: str) -> bool:
        """Has the model a place, and users, though the runtime does not list it?"""
        return model in self.registry and self.registry.peek(model).phase == MISSING

    @property
    def draining(self) -> frozenset[str]:
        """The models that make room for others."""
        return frozenset(each.model for each in self.registry.residents() if each.draining)

    def waiting(self, model: str) -> list[Ticket]:
        """The tickets that wait for a permit on the model, in order of arrival."""
        return [
            ticket
            for ticket in self.tickets.values()
            if ticket.model == model and ticket.wants == PERMIT and ticket.duty is None
        ]

    @property
    def wanted(self) -> set[str]:
        """The models that somebody waits for."""
        return {ticket.model for ticket in self.tickets.values()}

    @property
    def places_free(self) -> int:
        return self.max_loaded - len(self.registry) - len(self.leaving)

    def owners(self) -> set[str]:
        """The workers that own something here."""
        owned: list[Ticket | Permit | Refusal] = [
            *self.tickets.values(),
            *self.permits.values(),
            *self.refusals.values(),
        ]
        return {thing.worker for thing in owned}

    def _may_go(self, model: str) -> bool:
        return self.ready(model) and model not in self.pinned and not self.in_flight(model)

    # Changes

    def join(
        self, ticket: str, worker: str, model: str, wants: str, now: float, request: str = ""
    ) -> Ticket:
        """Take a place at the end of the queue."""
        self.number += 1
        joined = Ticket(ticket, worker, model, wants, now, self.number, request)
        self.tickets[ticket] = joined
        return joined

    def leave(self, ticket: str, now: float) -> None:
        """Give back whatever was held under this id: a place in the queue, a permit, a word."""
        given_back = self.tickets.pop(ticket, None)
        if given_back is not None and given_back.duty is not None:
            self._void_orphans(now)
        self.refusals.pop(ticket, None)
        permit = self.permits.pop(ticket, None)
        if permit is None:
            return
        tally = self.tally(permit.model)
        tally.use_seconds = _average(tally.use_seconds, now - permit.granted_at)
        if permit.model in self.registry:
            self.registry[permit.model].used_at = now

    def grant(self, ticket: Ticket, now: float) -> None:
        """Turn a place in the queue into a permit."""
        resident = self.registry[ticket.model]
        del self.tickets[ticket.id]
        self.granted_up_to = max(self.granted_up_to, ticket.number)
        for other in self.tickets.values():
            if other.number > ticket.number:
                break
            if other.overtaken_at is None and other.model not in self.registry:
                other.overtaken_at = now
        self.permits[ticket.id] = Permit(
            ticket.id,
            ticket.worker,
            ticket.model,
            ticket.arrived_at,
            now,
            load_seconds(ticket, resident, now),
        )
        resident.used_at = now

    def begin_load(self, ticket: Ticket, now: float) -> None:
        """Give the ticket's model a place in memory, and the ticket the duty to load it."""
        ticket.duty = LOAD
        self.registry[ticket.model] = Resident(ticket.model, LOADING, now, ticket.id, used_at=now)
        self._residency_changed(now)

    def finish_load(self, model: str, now: float, **facts: Any) -> None:
        """The model is in memory; `facts` are what the runtime says of it."""
        resident = self.registry.peek(model)
        resident.phase, resident.ready_at, resident.ticket = READY, now, None
        self.correct(model, **facts)
        self.troubles.pop(model, None)
        tally = self.tally(model)
        tally.loads += 1
        tally.load_seconds = _average(tally.load_seconds, now - resident.since)
        tally.size_bytes = resident.size_bytes
        self._residency_changed(now)

    def begin_unload(self, ticket: Ticket, victim: str, now: float) -> None:
        """Take a model out of the registry, and give the ticket the duty to see it out."""
        del self.registry[victim]
        self._leaves(victim, ticket, now)

    def evict(self, ticket: Ticket, now: float) -> None:
        """Let the registry choose a model that goes, and give the ticket the duty to unload it."""
        victim, _ = self.registry.popitem()
        self._leaves(victim, ticket, now)

    def _leaves(self, victim: str, ticket: Ticket, now: float) -> None:
        ticket.duty, ticket.victim = UNLOAD, victim
        self.leaving[victim] = ticket.id
        self.tally(victim).evictions += 1
        self._residency_changed(now)

    def free_of_duty(self, ticket: str) -> None:
        """The ticket has done what it had to do, and waits again."""
        if ticket in self.tickets:
            self.tickets[ticket].duty = self.tickets[ticket].victim = None

    def release(self, models: set[str], now: float) -> None:
        """These are no longer on their way out: gone, or given up."""
        self.leaving = {model: by for model, by in self.leaving.items() if model not in models}
        self._residency_changed(now)

    def drop(self, model: str, now: float) -> None:
        """The model is not in memory after all."""
        self.registry.pop(model, None)
        self._residency_changed(now)

    def look_for(self, model: str, *, listed: bool, now: float) -> None:
        """Note whether the runtime lists a model that was loaded.

        One that is gone keeps its place until nobody uses it any more: the runtime may be loading
        it for its users, and with another in its place there would be one too many in memory.
        """
        if listed:
            self.registry.peek(model).phase = READY
        elif self.in_flight(model):
            self.registry.peek(model).phase = MISSING
        else:
            self.drop(model, now)

    def adopt(self, model: str, now: float, **facts: Any) -> None:
        """The model is in memory though nobody here loaded it."""
        self.registry[model] = Resident(model, READY, now, ready_at=now, used_at=now, **facts)
        self._residency_changed(now)

    def correct(self, model: str, **facts: Any) -> None:
        """What is in memory under this name is as the runtime says, whatever was thought."""
        for name, value in facts.items():
            setattr(self.registry.peek(model), name, value)

    def refuse(self, ticket: Ticket, refusal: Refusal) -> None:
        """Turn a place in the queue into a word of refusal, to be fetched by its owner."""
        del self.tickets[ticket.id]
        self.refusals[ticket.id] = refusal

    def bury(self, worker: str, now: float) -> None:
        """Void all that a dead worker owned."""
        for owned in (self.tickets, self.permits, self.refusals):
            for key in [key for key, thing in owned.items() if thing.worker == worker]:
                del owned[key]
        self._void_orphans(now)

    def tally(self, model: str) -> Tally:
        return self.tallies.setdefault(model, Tally())

    def _void_orphans(self, now: float) -> None:
        """Nobody carries out the duties of a ticket that is gone."""
        for resident in filter(self._is_orphan, self.registry.residents()):
            self.drop(resident.model, now)
        orphans = {model for model, by in self.leaving.items() if by not in self.tickets}
        self.release(orphans, now)

    def _residency_changed(self, now: float) -> None:
        self.residency += 1
        swapping = self.leaving or any(each.phase == LOADING for each in self.registry.residents())
        if swapping and self.swap_began is None:
            self.swap_began = now
        elif not swapping and self.swap_began is not None:
            self._move_clocks(self.swap_began, now)
            self.swap_began = None

    def _move_clocks(self, began: float, now: float) -> None:
        """Being overtaken does not count while models are swapped."""
        for ticket in self.tickets.values():
            if ticket.overtaken_at is not None:
                ticket.overtaken_at += now - max(began, ticket.overtaken_at)

    def _is_orphan(self, resident: Resident) -> bool:
        return resident.phase == LOADING and resident.ticket not in self.tickets


def _average(earlier: float | None, value: float) -> float:
    """A moving average over the last few values."""
    return value if earlier is None else 0.7 * earlier + 0.3 * value


def load_seconds(ticket: Ticket, resident: Resident, now: float) -> float:
    """How much of the ticket's wait was the loading of its model."""
    loaded_at = now if resident.ready_at is None else resident.ready_at
    return max(0.0, min(now, loaded_at) - max(ticket.arrived_at, resident.since))
