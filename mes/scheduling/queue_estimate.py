"""The place of each waiting request in the queue, and an estimate of how long it will wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mes.scheduling.fairness import Limits, waiting_models
from mes.scheduling.registry import PERMIT, Ticket
from mes.scheduling.state import State


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


def queue_positions(state: State, now: float, limits: Limits) -> Iterator[QueuePosition]:
    """Yield the requests that wait for a permit, oldest first."""
    until_in_memory = _until_in_memory(state, now, limits)
    positions: dict[str, int] = {}
    for ticket in state.tickets.values():
        if ticket.wants != PERMIT:
            continue
        positions[ticket.model] = position = positions.get(ticket.model, 0) + 1
        yield QueuePosition(
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
    """Return how long it will take each model that is not ready to be so, in seconds."""
    loads = {model: each.load_seconds or 0.0 for model, each in state.statistics.items()}
    until = {
        model: max(0.0, state.registry.peek(model).since + loads.get(model, 0.0) - now)
        for model in state.registry
        if not state.ready(model)
    }
    # Each waiting model waits for one more turn, which is at most the patience.
    ahead = 0.0
    for ticket in waiting_models(state):
        queued = len(state.waiting(ticket.model))
        rounds = -(-queued // limits.max_concurrent(ticket.model))
        ahead += limits.usual_seconds(state) + loads.get(ticket.model, 0.0)
        until[ticket.model] = ahead
        ahead += min(limits.patience(state), rounds * limits.usual_seconds(state, ticket.model))
    return until
