"""Turns: who waits for a place in memory, and when a model must make room for another.

A request is *overtaken* when a permit goes to one that came later, while it waits for its model to
get a place in memory. Its clock runs from then on, except while models are being swapped. Before it
reaches the patience the line is closed: all who came before the last permit are served before
anybody who came after it. The models take turns at their part of the line, so that grouping goes on
inside it; it is closed so early that the parts ahead, as long as requests usually take, fit in.

      A serves           B, its part of the line     C, its part of the line, and on
    |--------------|----------------------------|-----------------------------------
                   closed                                      open again

Requests may take longer than usual. Therefore whoever has been overtaken for the whole patience is
overtaken no more: what drains for him serves only those who came before him.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from mes.scheduling.limits import Limits
from mes.scheduling.records import UNLOAD, Ticket
from mes.scheduling.state import State

NOBODY = float("inf")


def contenders(state: State) -> Iterator[Ticket]:
    """The first ticket of each model that needs a place which nobody is getting for it yet."""
    seen = {t.model for t in state.tickets.values() if t.duty and t.wants != UNLOAD}
    for ticket in state.tickets.values():
        if ticket.wants == UNLOAD or ticket.duty is not None or ticket.model in seen:
            continue
        seen.add(ticket.model)
        if not state.in_memory(ticket.model):
            yield ticket


def should_close(state: State, line: list[Ticket], now: float, limits: Limits) -> bool:
    """Is it time, if those who stand before somebody are to be served within his patience?"""
    if state.closed_at or not line:
        return False
    # Each model that makes room first finishes what it has begun.
    patience, ahead = limits.patience(state, len(line)), limits.usual_seconds(state)
    parts = Counter(t.model for t in state.tickets.values() if t.number <= state.granted_up_to)
    for ticket in line:
        overtaken = _overtaken(state, ticket, now)
        if overtaken >= 0 and overtaken + ahead >= patience:
            return True
        rounds = 1 + math.ceil(parts[ticket.model] / limits.max_concurrent(ticket.model))
        ahead += rounds * limits.usual_seconds(state, ticket.model)
    return False


def should_open(state: State, line: list[Ticket]) -> bool:
    """Has everybody before the end of the line a place?"""
    return bool(state.closed_at) and not any(t.number <= state.closed_at for t in line)


def pressing(state: State, line: list[Ticket], now: float, limits: Limits) -> list[Ticket]:
    """The contenders for which models have to make room now, in order of arrival."""
    patience = limits.patience(state, len(line))
    return [t for t in line if t.number <= state.closed_at or _overtaken(state, t, now) >= patience]


def barrier(state: State, line: list[Ticket], now: float, limits: Limits) -> float:
    """A model that makes room serves nobody with this number or a higher one."""
    patience = limits.patience(state, len(line))
    overdue = [t.number for t in line if _overtaken(state, t, now) >= patience]
    return min([*overdue, state.closed_at + 1 if state.closed_at else NOBODY])


def victims(state: State, count: int) -> list[str]:
    """The models that make room for so many contenders.

    One that drains already goes on draining, or no drain would ever end; then one that nobody waits
    for, then the least recently used.
    """
    if not count:
        return []
    wanted = state.wanted
    candidates = [m for m in state.registry if state.ready(m) and m not in state.pinned]
    # A stable sort: within equals the order stays that of the last use.
    candidates.sort(key=lambda m: (not state.registry.peek(m).draining, m in wanted))
    return candidates[:count]


def _overtaken(state: State, ticket: Ticket, now: float) -> float:
    if ticket.overtaken_at is None:
        return -1.0
    return (now if state.swap_began is None else state.swap_began) - ticket.overtaken_at
