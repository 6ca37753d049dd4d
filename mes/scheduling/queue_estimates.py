"""Estimates of the time in the queue: the policy itself, run ahead in virtual time.

A copy of the state is continued as if every generation and load took as long as they did lately,
and as if requests continued to arrive as often. Swaps, batch boundaries and the order of models are
then those that the policy will decide. Only readers pay for it, at most once a second.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from mes.scheduling import policy
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.fairness import Limits, waiting_models
from mes.scheduling.registry import LOADING, MISSING, PERMIT, Ticket
from mes.scheduling.serialization import decode, encode
from mes.scheduling.state import State

# The first requests of each model are followed; those behind them are estimated from their pace.
_FOLLOWED = 20
_MOST_EVENTS = 400
_MOST_SECONDS = 3600.0
_UNLOAD_SECONDS = 0.2
_CACHED_SECONDS = 1.0
# While there is no estimate for one of the requests.
_PARTLY_CACHED_SECONDS = 0.1
# What runs longer than usual is likely to run on: for this part of the time it has taken already.
_OVERTIME = 0.3
# Requests that arrive more seldom do not change an estimate.
_RAREST_ARRIVAL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """A request in the queue. `position` 1 is the next to be served by its model.

    `expected_seconds` is how much longer it will wait if requests and loads take as long as they
    did lately; None while that is unknown.
    """

    request: str
    model: str
    position: int
    waited_seconds: float
    expected_seconds: float | None


def queue_positions(
    state: State, now: float, starts: Mapping[str, float]
) -> Iterator[QueuePosition]:
    """Yield the requests that wait for a permit, oldest first; `starts` are the expected ones."""
    positions: Counter[str] = Counter()
    for ticket in _waiting(state):
        positions[ticket.model] += 1
        start = starts.get(ticket.id)
        yield QueuePosition(
            ticket.request,
            ticket.model,
            positions[ticket.model],
            now - ticket.arrived_at,
            None if start is None else max(0.0, start - now),
        )


def expected_starts(state: State, now: float, limits: Limits) -> dict[str, float]:
    """Return when the waiting requests are expected to get a permit, by ticket.

    A request is left out if no request of any model has ended yet, or if its start is too far away.
    """
    if not any(limits.usual_seconds(state, ticket.model) for ticket in _waiting(state)):
        return {}
    return _complete(state, _Simulation(state, now, limits).run(), limits)


class QueueEstimates:
    """The positions of the waiting requests, with estimates that are made once a second."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._starts: dict[str, float] = {}
        self._made_at = -math.inf

    def positions(self) -> list[QueuePosition]:
        """Return the requests that wait for a permit, oldest first."""
        state, limits, now = self._coordinator.read(), self._coordinator.limits, time.monotonic()
        starts = _complete(state, self._starts, limits)
        is_whole = all(ticket.id in starts for ticket in _waiting(state))
        if now - self._made_at > (_CACHED_SECONDS if is_whole else _PARTLY_CACHED_SECONDS):
            starts = self._starts = expected_starts(state, now, limits)
            self._made_at = now
        return list(queue_positions(state, now, starts))

    def seconds_to_half(self, model: str) -> float | None:
        """Return after how many seconds half of the model's waiting requests will have begun."""
        expected = [each.expected_seconds for each in self.positions() if each.model == model]
        return expected[len(expected) // 2] if expected else None


def _complete(state: State, starts: Mapping[str, float], limits: Limits) -> dict[str, float]:
    """Return the starts of those behind the followed requests too, at the pace of their model."""
    complete, latest = dict(starts), dict[str, float]()
    for ticket in _waiting(state):
        model = ticket.model
        if ticket.id in starts:
            latest[model] = max(latest.get(model, 0.0), starts[ticket.id])
        elif model in latest:
            latest[model] += limits.usual_seconds(state, model) / limits.max_concurrent(model)
            complete[ticket.id] = latest[model]
    return complete


def _waiting(state: State) -> list[Ticket]:
    return [ticket for ticket in state.tickets.values() if ticket.wants == PERMIT]


class _Simulation:
    """A copy of the state that is continued in virtual time.

    Args:
        now: The time of the state, at which it begins.
    """

    def __init__(self, state: State, now: float, limits: Limits) -> None:
        self._state = decode(encode(state), state.max_loaded)
        self._now = now
        self._began = now
        self._limits = limits
        waiting, running = state.tickets.values(), state.permits.values()
        models = {*(t.model for t in waiting), *(p.model for p in running), *limits.models}
        self._usual = {model: self._usual_seconds(model) for model in models}
        self._loads = _load_seconds(self._state)
        self._starts: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._followed = self._leave_out_the_rest()
        self._continue_running()
        if any(waiting_models(self._state)):
            self._let_requests_arrive()
            self._tick()

    def run(self) -> dict[str, float]:
        """Return when the followed tickets get a permit."""
        for _ in range(_MOST_EVENTS):
            self._carry_out(policy.settle(self._state, self._now, self._limits))
            if not self._events or not self._followed - self._starts.keys():
                break
            self._now, _, act = heapq.heappop(self._events)
            if self._now > self._began + _MOST_SECONDS:
                break
            act()
        return {ticket: at for ticket, at in self._starts.items() if ticket in self._followed}

    def _leave_out_the_rest(self) -> set[str]:
        """Remove the requests behind the first ones of each model, and return the tickets left."""
        seen: Counter[str] = Counter()
        for ticket in _waiting(self._state):
            seen[ticket.model] += 1
            if seen[ticket.model] > _FOLLOWED and ticket.task is None:
                del self._state.tickets[ticket.id]
        return {ticket.id for ticket in _waiting(self._state)}

    def _continue_running(self) -> None:
        for permit in self._state.permits.values():
            left = _left(self._usual[permit.model], self._now - permit.granted_at)
            self._after(left, partial(self._leave, permit.id))
        for ticket in self._state.tickets.values():
            if ticket.victim is not None:
                self._unload(ticket, ticket.victim)
        for resident in self._state.registry.residents():
            loads = self._state.tickets.get(resident.ticket or "")
            if resident.phase == LOADING and loads is not None:
                self._load(loads, self._now - resident.since)
            elif resident.phase == MISSING:
                self._after(self._loads[""], partial(self._find, resident.model))

    def _let_requests_arrive(self) -> None:
        """Let requests arrive as often as lately, that may overtake the waiting ones."""
        for model, arrivals in self._state.arrivals.items():
            every = arrivals.seconds_between(self._now)
            if every <= _RAREST_ARRIVAL_SECONDS and model in self._limits.models:
                self._after(every / 2, partial(self._arrive, model, every))

    def _arrive(self, model: str, every: float) -> None:
        if len(self._state.waiting(model)) < _FOLLOWED:
            self._state.join(f"simulated/{next(self._order)}", "", model, PERMIT, self._now)
        self._after(every, partial(self._arrive, model, every))

    def _tick(self) -> None:
        """Let the policy decide from time to time: the patience of a request may be over."""
        self._after(max(0.25, self._limits.patience(self._state) / 20), self._tick)

    def _carry_out(self, decisions: list[policy.Decision]) -> None:
        for decision in decisions:
            match decision:
                case policy.Grant(ticket):
                    self._starts[ticket.id] = self._now
                    self._after(self._usual[ticket.model], partial(self._leave, ticket.id))
                case policy.Load(ticket):
                    self._load(ticket, 0.0)
                case policy.Unload(ticket, victim) | policy.Evict(ticket, victim):
                    self._unload(ticket, victim)

    def _leave(self, permit: str) -> None:
        self._state.leave(permit, self._now)

    def _find(self, place: str) -> None:
        if place in self._state.registry:
            self._state.look_for(place, listed=True, now=self._now)

    def _load(self, ticket: Ticket, elapsed: float) -> None:
        left = _left(self._loads.get(self._state.place_of(ticket.model), self._loads[""]), elapsed)
        self._after(left, partial(self._loaded, ticket))

    def _loaded(self, ticket: Ticket) -> None:
        if (resident := self._state.loading_by(ticket.id)) is not None:
            self._state.finish_load(resident.model, self._now)
        self._state.finish_task(ticket.id)

    def _unload(self, ticket: Ticket, victim: str) -> None:
        self._after(_UNLOAD_SECONDS, partial(self._unloaded, ticket, victim))

    def _unloaded(self, ticket: Ticket, victim: str) -> None:
        self._state.release({victim}, self._now)
        self._state.finish_task(ticket.id)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), act))

    def _usual_seconds(self, model: str) -> float:
        """Return how long a request will take: longer than lately, if those that run do."""
        usual = self._limits.usual_seconds(self._state, model)
        running = [
            self._now - p.granted_at for p in self._state.permits.values() if p.model == model
        ]
        longer = sum(running) / len(running) if running else 0.0
        return usual if longer <= usual else (usual + longer) / 2


def _left(usual: float, elapsed: float) -> float:
    return max(usual - elapsed, _OVERTIME * max(usual, elapsed))


def _load_seconds(state: State) -> dict[str, float]:
    """Return how long a load takes, by place; by the empty name for one that is not known."""
    known = {
        place: each.load_seconds
        for place, each in state.statistics.items()
        if each.load_seconds is not None
    }
    return {**known, "": sum(known.values()) / len(known) if known else 0.0}
