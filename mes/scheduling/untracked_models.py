"""Untracked models: those in the runtime's memory that have no place in the registry."""

from __future__ import annotations

from mes.scheduling.state import State


def overfull(state: State, listed: set[str]) -> bool:
    """Return whether more models are in memory, loading and unloading included, than may be."""
    in_memory = len({*state.registry, *state.unloading, *listed}) + len(state.stuck)
    return in_memory > state.max_loaded


def claim_untracked(state: State, listed: set[str], ticket: str) -> set[str]:
    """Mark untracked models as unloading, if they are in the way, and return them.

    An untracked model is in the runtime's memory without a place in the registry. Marked, it is
    loaded by no request until `ticket` has unloaded it.
    """
    if not overfull(state, listed):
        return set()
    claimed = listed - set(state.registry) - set(state.unloading)
    state.unloading.update(dict.fromkeys(claimed, ticket))
    return claimed
