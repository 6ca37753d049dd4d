"""Strangers: models in the runtime's memory that have no place in the registry."""

from __future__ import annotations

from mes.scheduling.state import State


def overfull(state: State, listed: set[str]) -> bool:
    """Is more in memory, coming and leaving included, than may be?"""
    return len({*state.registry, *state.leaving, *listed}) > state.max_loaded


def claim_strangers(state: State, listed: set[str], ticket: str) -> set[str]:
    """Where strangers are in the way, note them as leaving, so that nobody loads them meanwhile."""
    if not overfull(state, listed):
        return set()
    claimed = listed - set(state.registry) - set(state.leaving)
    state.leaving.update(dict.fromkeys(claimed, ticket))
    return claimed
