"""The forecast: where a waiting request stands, and when its turn will come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mes.scheduling.limits import Limits
from mes.scheduling.records import PERMIT, Ticket
from mes.scheduling.state import State
from mes.scheduling.turns import contenders


@dataclass(frozen=True, slots=True)
class Standing:
    """A request in the queue. `position` 1 is the next to be served by its model.

    `expected_seconds` is how much longer it will wait if requests and loads take as long as they
    did lately; None while nothing is known of that.
    """

    request: str
    model: str
    position: int
    waited_seconds: float
    expected_seconds: float | None


def standings(state: State, now: float, limits: Limits) -> Iterator[Standing]:
    """All that wait for a permit, in order of arrival."""
    until_in_memory = _until_in_memory(state, now, limits)
    positions: dict[str, int] = {}
    for ticket in state.tickets.values():
        if ticket.wants != PERMIT:
            continue
        positions[ticket.model] = position = positions.get(ticket.model, 0) + 1
        yield Standing(
            ticket.request,
            ticket.model,
            position,
            now - ticket.arrived_at,
            _expected(state, ticket, position, until_in_memory.get(ticket.model, 0.0), limits),
        )


def _expected(
    state: State, ticket: Ticket, position: int, until_in_memory: float, limits: Limits
) -> float | None:
    usual = limits.usual_seconds(state, ticket.model)
    if not usual:
        return None
    ahead = position - 1 + state.in_flight(ticket.model)
    rounds = max(0, ahead + 1 - limits.max_concurrent(ticket.model))
    return until_in_memory + rounds * usual / limits.max_concurrent(ticket.model)


def _until_in_memory(state: State, now: float, limits: Limits) -> dict[str, float]:
    """For each model that is not ready: how long until it is."""
    loads = {model: tally.load_seconds or 0.0 for model, tally in state.tallies.items()}
    until = {
        model: max(0.0, state.registry.peek(model).since + loads.get(model, 0.0) - now)
        for model in state.registry
        if not state.ready(model)
    }
    # Each in line waits for one more turn, which is at most the patience.
    ahead = 0.0
    for ticket in contenders(state):
        queued = len(state.waiting(ticket.model))
        rounds = -(-queued // limits.max_concurrent(ticket.model))
        ahead += limits.usual_seconds(state) + loads.get(ticket.model, 0.0)
        until[ticket.model] = ahead
        ahead += min(limits.patience(state), rounds * limits.usual_seconds(state, ticket.model))
    return until
