"""Keep-alive: models that MES uses stay in the runtime's memory, all others leave by themselves."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from mes.domain import KEEP_ALIVE_SECONDS, LoadedModel, ModelSpec, PulledModel, Runtime
from mes.errors import StateUnavailable
from mes.scheduling.background import BackgroundOperations
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.state import State
from mes.scheduling.workers import WorkerProcess

# The other half is for a leader that is delayed.
_RENEWAL_SECONDS = KEEP_ALIVE_SECONDS / 2
# A renewal takes milliseconds. It must not become a load, should the model have left meanwhile.
_TIMEOUT_SECONDS = 2.0


class KeepAlive:
    """Renews the time for which the runtime keeps idle models.

    A load sets this time, and a generation that ends lets it begin again. A load of a model that is
    in memory sets it anew, and does nothing else.

    Only a model that is idle is renewed, and is held by a permit meanwhile, because a load would
    stop the runtime from unloading a busy one to make room. A name that has been deleted, or that
    means other weights now, is not renewed: its load would fail, or load the others too.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        coordinator: Coordinator,
        worker: WorkerProcess,
        background: BackgroundOperations,
    ) -> None:
        self._runtime = runtime
        self._coordinator = coordinator
        self._worker = worker
        self._background = background

    def run(self, listed: Sequence[LoadedModel], pulled: Mapping[str, PulledModel]) -> None:
        """Begin the renewals that are due.

        Args:
            listed: The models in the runtime's memory.
            pulled: The models on its disk, by name.
        """
        state, models = self._coordinator.read(), self._coordinator.limits.models
        for place in _renewable(state, listed, pulled):
            if place in models and _is_due(state, place, time.monotonic()):
                self._background.run(f"keep {place}", partial(self._renew, models[place]))

    def _renew(self, spec: ModelSpec) -> None:
        ticket = self._worker.new_ticket()
        with self._coordinator.transaction() as transaction:
            if not _is_due(transaction.state, spec.tag, transaction.now):
                return
            transaction.state.begin_renewal(ticket, self._worker.id, spec.tag, transaction.now)
        try:
            self._runtime.load(spec, deadline=time.monotonic() + _TIMEOUT_SECONDS)
        finally:
            try:
                with self._coordinator.transaction() as transaction:
                    transaction.state.finish_renewal(ticket, transaction.now)
            except StateUnavailable:
                self._coordinator.leave(ticket)  # which tries until it succeeds
                raise


def _renewable(
    state: State, listed: Sequence[LoadedModel], pulled: Mapping[str, PulledModel]
) -> Iterator[str]:
    """Yield the places of the models in memory whose only version is the one on disk."""
    places = Counter(place for runner in listed for place in state.places_of([runner]))
    for runner in listed:
        for place in state.places_of([runner]):
            on_disk = pulled.get(place)
            if places[place] == 1 and on_disk and on_disk.digest == runner.digest:
                yield place


def _is_due(state: State, place: str, now: float) -> bool:
    """Return whether an idle model has not been used or renewed for half of its time.

    If the runtime has loaded it by itself, it may have set a shorter time.
    """
    if not state.ready(place) or state.in_use(place) or place in state.unload_failures:
        return False
    resident = state.registry.peek(place)
    last = (
        max(state.renewed_at[place], resident.used_at) if place in state.renewed_at else -math.inf
    )
    return not resident.draining and now - last > _RENEWAL_SECONDS
