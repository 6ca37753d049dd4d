"""Stalled loads: a load that waits in the runtime for a place that a busy model has.

Ollama unloads a model only when it is idle. If it has fewer places than MES counts, a load can wait
as long as requests keep another model busy. A load that takes longer than the patience has stalled:
the other models drain, so that the runtime can make room. If they become idle and stay in memory,
then the load is only slow, and they serve again.
"""

from __future__ import annotations

import logging
import time

from mes.scheduling.coordinator import Coordinator
from mes.scheduling.fairness import Limits
from mes.scheduling.registry import LOADING, READY, Resident
from mes.scheduling.state import State

log = logging.getLogger(__name__)

# The runtime unloads an idle model that has to make room at once.
_IDLE_SECONDS = 2.0


class StalledLoads:
    """Notes which loads have stalled."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def run(self) -> None:
        """Let the other models drain for a load that has stalled, until they have been idle."""
        if not _changes(self._coordinator.read(), time.monotonic(), self._coordinator.limits):
            return
        with self._coordinator.transaction() as transaction:
            changes = _changes(transaction.state, transaction.now, transaction.limits)
            for place, waits in changes.items():
                event = "load_stalled" if waits else "load_slow"
                log.warning(event, extra={"model": place})
                transaction.state.stalled[place] = waits


def _changes(state: State, now: float, limits: Limits) -> dict[str, bool]:
    """Return the loads that have stalled since, and those that turn out to be slow, by place."""
    loading = [each for each in state.registry.residents() if each.phase == LOADING]
    others = [each for each in state.registry.residents() if each.phase == READY]
    if not loading or not others:
        return {}
    patience, idle = limits.patience(state), _all_idle(state, others, now)
    return {
        each.model: not idle
        for each in loading
        if (idle if state.stalled.get(each.model) else _stalls(state, each, now, patience))
    }


def _stalls(state: State, resident: Resident, now: float, patience: float) -> bool:
    return resident.model not in state.stalled and now - resident.since >= patience


def _all_idle(state: State, residents: list[Resident], now: float) -> bool:
    return all(
        now - each.used_at >= _IDLE_SECONDS and not state.in_use(each.model) for each in residents
    )
