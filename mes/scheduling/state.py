"""The state that all workers share, and the changes that can be made to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mes.scheduling.memory import Memory
from mes.scheduling.registry import (
    LOAD,
    LOADING,
    PERMIT,
    READY,
    UNLOAD,
    Arrivals,
    LoadFailure,
    ModelStatistics,
    Permit,
    Refusal,
    Resident,
    Ticket,
)


@dataclass
class State(Memory):
    """The requests that run and wait, and the models in memory.

    `batch_boundary` is a ticket number, or 0 (mes/scheduling/fairness.py).
    """

    number: int = 0
    granted_up_to: int = 0
    batch_boundary: int = 0
    permits: dict[str, Permit] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    load_failures: dict[str, LoadFailure] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    statistics: dict[str, ModelStatistics] = field(default_factory=dict)
    preloaded: dict[str, str] = field(default_factory=dict)
    arrivals: dict[str, Arrivals] = field(default_factory=dict)

    # Reading

    def in_flight(self, model: str) -> int:
        """Return how many requests use the model, by this name."""
        return sum(permit.model == model for permit in self.permits.values())

    def in_use(self, place: str) -> bool:
        """Return whether a request uses the model in this place, by any of its names."""
        return any(self.place_of(permit.model) == place for permit in self.permits.values())

    def in_flight_at(self, model: str) -> int:
        """Return how many requests use the model's place, by all of its names."""
        place = self.place_of(model)
        return sum(self.place_of(permit.model) == place for permit in self.permits.values())

    def requests(self, model: str) -> int:
        """Return how many requests use the model or wait for a permit on it."""
        waiting = sum(t.model == model and t.wants == PERMIT for t in self.tickets.values())
        return self.in_flight(model) + waiting

    def waiting(self, model: str) -> list[Ticket]:
        """Return the tickets that wait for a permit on the model, oldest first."""
        return [
            ticket
            for ticket in self.tickets.values()
            if ticket.model == model and ticket.wants == PERMIT and ticket.task is None
        ]

    @property
    def wanted(self) -> set[str]:
        """The places of the models that requests wait for."""
        return {self.place_of(ticket.model) for ticket in self.tickets.values()}

    def owners(self) -> set[str]:
        """Return the workers that own a ticket, a permit or a refusal."""
        owned: list[Ticket | Permit | Refusal] = [
            *self.tickets.values(),
            *self.permits.values(),
            *self.refusals.values(),
        ]
        return {thing.worker for thing in owned}

    # Changes

    def join(
        self, ticket: str, worker: str, model: str, wants: str, now: float, request: str = ""
    ) -> Ticket:
        """Add a ticket at the end of the queue and return it."""
        self.number += 1
        joined = Ticket(ticket, worker, model, wants, now, self.number, request)
        self.tickets[ticket] = joined
        if wants == PERMIT:
            self.arrivals.setdefault(model, Arrivals(now)).add(now)
        return joined

    def leave(self, ticket: str, now: float) -> None:
        """Give back a ticket, a permit or a refusal by its id."""
        given_back = self.tickets.pop(ticket, None)
        if given_back is not None and given_back.task is not None:
            self._void_orphans(now)
        self.refusals.pop(ticket, None)
        permit = self.permits.pop(ticket, None)
        if permit is None:
            return
        statistics = self.statistics_of(permit.model)
        statistics.use_seconds = _average(statistics.use_seconds, now - permit.granted_at)
        if (place := self.place_of(permit.model)) in self.registry:
            self.registry[place].used_at = now

    def grant(self, ticket: Ticket, now: float) -> None:
        """Turn a ticket into a permit."""
        resident = self.registry[self.place_of(ticket.model)]
        del self.tickets[ticket.id]
        self.granted_up_to = max(self.granted_up_to, ticket.number)
        for other in self.tickets.values():
            if other.number > ticket.number:
                break
            if other.overtaken_at is None and self.resident(other.model) is None:
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

    def begin_renewal(self, ticket: str, worker: str, model: str, now: float) -> None:
        """Hold an idle model with a permit, while its time in the runtime's memory is renewed."""
        self.permits[ticket] = Permit(ticket, worker, model, now, now, 0.0)

    def finish_renewal(self, ticket: str, now: float) -> None:
        """Give back the permit. It was no use of the model, so neither LRU order nor averages."""
        permit = self.permits.pop(ticket, None)
        if permit is not None and (place := self.place_of(permit.model)) in self.registry:
            self.renewed_at[place] = now

    def begin_load(self, ticket: Ticket, now: float) -> None:
        """Give the ticket's model a place in memory, and the ticket the task to load it."""
        ticket.task = LOAD
        place = self.place_of(ticket.model)
        self.registry[place] = Resident(place, LOADING, now, ticket.id, used_at=now)
        self._residency_changed(now)

    def finish_load(self, model: str, now: float, **facts: Any) -> None:
        """Note that the model is in memory; `facts` are fields of its resident."""
        resident = self.registry.peek(place := self.place_of(model))
        resident.phase, resident.ready_at, resident.ticket = READY, now, None
        self.correct(model, **facts)
        self.renewed_at[place] = now
        self.stalled.pop(place, None)
        self.load_failures.pop(model, None)
        statistics = self.statistics_of(place)
        statistics.loads += 1
        statistics.load_seconds = _average(statistics.load_seconds, now - resident.since)
        statistics.size_bytes = resident.size_bytes
        self._residency_changed(now)

    def begin_unload(self, ticket: Ticket, victim: str, now: float) -> None:
        """Take a model out of the registry, and give the ticket the task to unload it."""
        del self.registry[victim]
        self._leaves(victim, ticket, now)

    def evict(self, ticket: Ticket, now: float) -> None:
        """Let the registry choose a model, and give the ticket the task to unload it."""
        victim, _ = self.registry.popitem()
        self._leaves(victim, ticket, now)

    def _leaves(self, victim: str, ticket: Ticket, now: float) -> None:
        ticket.task, ticket.victim = UNLOAD, victim
        self.renewed_at.pop(victim, None)
        self.unloading[victim] = ticket.id
        self.statistics_of(victim).evictions += 1
        self._residency_changed(now)

    def finish_task(self, ticket: str) -> None:
        """Note that the ticket has carried out its task and waits again."""
        if ticket in self.tickets:
            self.tickets[ticket].task = self.tickets[ticket].victim = None

    def refuse(self, ticket: Ticket, refusal: Refusal) -> None:
        """Turn a ticket into a refusal, which its owner fetches."""
        del self.tickets[ticket.id]
        self.refusals[ticket.id] = refusal

    def release_dead_worker(self, worker: str, now: float) -> None:
        """Remove all that a dead worker owned."""
        for owned in (self.tickets, self.permits, self.refusals):
            for key in [key for key, thing in owned.items() if thing.worker == worker]:
                del owned[key]
        self._void_orphans(now)

    def statistics_of(self, model: str) -> ModelStatistics:
        return self.statistics.setdefault(model, ModelStatistics())

    def _void_orphans(self, now: float) -> None:
        """Undo the loads and unloads whose tickets have left."""
        for resident in filter(self._is_orphan, self.registry.residents()):
            self.drop(resident.model, now)
        orphans = {model for model, by in self.unloading.items() if by not in self.tickets}
        self.release(orphans, now)

    def _move_clocks(self, began: float, now: float) -> None:
        """Do not count the time in which models were swapped as overtaken."""
        for ticket in self.tickets.values():
            if ticket.overtaken_at is not None:
                ticket.overtaken_at += now - max(began, ticket.overtaken_at)

    def _is_orphan(self, resident: Resident) -> bool:
        return resident.phase == LOADING and resident.ticket not in self.tickets


def _average(earlier: float | None, value: float) -> float:
    """Return a moving average over the last few values."""
    return value if earlier is None else 0.7 * earlier + 0.3 * value


def load_seconds(ticket: Ticket, resident: Resident, now: float) -> float:
    """Return how much of the ticket's wait was the loading of its model."""
    loaded_at = now if resident.ready_at is None else resident.ready_at
    return max(0.0, min(now, loaded_at) - max(ticket.arrived_at, resident.since))
