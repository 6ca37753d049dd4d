"""Untracked models: those in the runtime's memory that have no place in the registry."""

from __future__ import annotations

from collections.abc import Collection

from mes.scheduling.state import State


def overfull(state: State, listed: Collection[str]) -> bool:
    """Return whether more models are in memory, loading and unloading included, than may be.

    Args:
        listed: The places of the models that the runtime lists, without the stuck ones. A place
            that is there twice has two models in memory, of which one is not yet known as stuck.
    """
    earlier_versions = len(listed) - len(set(listed))
    places = len({*state.registry, *state.unloading, *listed})
    return places + earlier_versions + len(state.stuck) > state.places


def claim_untracked(state: State, listed: Collection[str], ticket: str) -> set[str]:
    """Mark untracked models as unloading, if they are in the way, and return them.

    An untracked model is in the runtime's memory without a place in the registry. Marked, it is
    loaded by no request until `ticket` has unloaded it.
    """
    if not overfull(state, listed):
        return set()
    claimed = set(listed) - set(state.registry) - set(state.unloading)
    state.unloading.update(dict.fromkeys(claimed, ticket))
    return claimed
