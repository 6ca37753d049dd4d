"""The observer of the runtime's places: finds the evictions that MES has not decided."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from mes.domain import LoadedModel
from mes.scheduling import runtime_places
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.memory import Memory
from mes.scheduling.registry import LOADING

# A model that left longer ago has not made room for a load that ends now.
_EVICTION_SECONDS = 120.0


class PlacesObserver:
    """Compares the lists of the models in the runtime's memory, and notes what they show."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._listed_before: set[str] = set()
        self._stalled_before: set[str] = set()
        self._left: dict[str, float] = {}

    def run(self, listed: Sequence[LoadedModel], residency: int) -> None:
        """Note evictions, and how many models the runtime holds.

        Args:
            listed: The models that the runtime lists.
            residency: That of the state before they were listed; of a later state, the list says
                nothing.
        """
        state, now = self._coordinator.read(), time.monotonic()
        if state.residency != residency:
            return
        places = set(state.places_of(listed))
        self._note_left(state, places, now)
        evictions = list(self._evictions(state, places))
        self._listed_before = places
        self._stalled_before = {place for place, waits in state.stalled.items() if waits}
        if evictions or state.found_places:
            with self._coordinator.transaction() as transaction:
                runtime_places.note_held(transaction.state, len(listed))
                for is_certain in evictions:
                    runtime_places.note_eviction(
                        transaction.state, len(listed), now, is_certain=is_certain
                    )
                runtime_places.try_more(transaction.state, now)

    def restart(self) -> None:
        """Forget everything: the runtime did not answer for a while, so it may have restarted."""
        self._left.clear()
        self._listed_before.clear()
        with self._coordinator.transaction() as transaction:
            runtime_places.forget(transaction.state)

    def _note_left(self, memory: Memory, places: set[str], now: float) -> None:
        for place in filter(memory.ready, memory.registry):
            if place not in places:
                self._left.setdefault(place, now)
        self._left = {
            place: at
            for place, at in self._left.items()
            if place not in places and now - at < _EVICTION_SECONDS
        }

    def _evictions(self, memory: Memory, places: set[str]) -> Iterator[bool]:
        """Yield whether it is certain, for each model that left for one that has come."""
        for place in places - self._listed_before:
            resident = memory.resident(place)
            if resident is None or resident.phase == LOADING:
                continue  # nothing to tell from; or not loaded by MES
            for left in [left for left, at in self._left.items() if resident.since <= at]:
                del self._left[left]
                yield place in self._stalled_before
