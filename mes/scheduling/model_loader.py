"""Loading and unloading models in the runtime: slow, and therefore outside of transactions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from mes.config.timed_lock import doubling_pauses
from mes.domain import LoadedModel, ModelSpec, Runtime
from mes.errors import (
    LoadFailed,
    LoadTimeout,
    MesError,
    ModelUnavailable,
    RuntimeUnavailable,
    ShuttingDown,
    format_number,
)
from mes.scheduling.cooldown import Cooldown
from mes.scheduling.registry import NOT_UNLOADED, StuckRunner
from mes.scheduling.store import Store
from mes.scheduling.untracked_models import claim_untracked, overfull

log = logging.getLogger(__name__)

# The pauses between queries whether a model has left memory: most leave soon.
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.2


class PlaceLost(Exception):
    """The place that a model has been given is not free after all: a stuck model has it."""


class ModelLoader:
    """Loads and unloads models in the runtime, as the policy has decided.

    Args:
        runtime: The runtime.
        store: The shared state.
        load_timeout_seconds: The longest time for one attempt to load a model.
        unload_timeout_seconds: The longest time for a model to leave memory.
        retry_pause_seconds: The pause before the second attempt to load a model.
        cooldown: The pauses after a failed load or unload.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        *,
        load_timeout_seconds: float,
        unload_timeout_seconds: float,
        retry_pause_seconds: float,
        cooldown: Cooldown,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._load_timeout = load_timeout_seconds
        self._unload_timeout = unload_timeout_seconds
        self._retry_pause = retry_pause_seconds
        self.cooldown = cooldown

    def load(self, spec: ModelSpec, ticket: str) -> list[LoadedModel]:
        """Load the model for a ticket, in two attempts; return the models in memory after that.

        Raises:
            ModelUnavailable: both attempts failed.
            LoadTimeout: an attempt took too long.
            ModelNotPulled: the model is not on the runtime's disk.
            RuntimeUnavailable: the runtime cannot be reached, or has not made room in time.
            PlaceLost: too many models are in memory, so that this one must wait.
        """
        started = time.monotonic()
        self._make_room(ticket)
        try:
            self._load(spec)
        except LoadFailed as exc:
            log.warning("load_failed", extra={"model": spec.id, "reason": exc.detail, "try": 1})
            time.sleep(self._retry_pause)
            self._load_again(spec)
        log.info("loaded", extra={"model": spec.id, "seconds": time.monotonic() - started})
        return self._runtime.loaded()

    def unload_and_wait(self, place: str, *, seconds: float | None = None) -> None:
        """Unload the model and wait until it has left memory, or is known to be stuck.

        Args:
            seconds: The longest wait, if not UNLOAD_TIMEOUT.

        Raises:
            RuntimeUnavailable: the runtime cannot be reached, or still lists the model at the end
                of the time.
        """
        started, longest = time.monotonic(), self._unload_timeout if seconds is None else seconds
        self._runtime.unload(place)
        pauses = _pauses()
        while self.find(place) is not None:
            if time.monotonic() > started + longest:
                limit = format_number(longest)
                raise RuntimeUnavailable(f"the runtime has not unloaded {place} within {limit} s")
            time.sleep(next(pauses))
        log.info("unloaded", extra={"model": place, "seconds": time.monotonic() - started})

    def request_unload(self, place: str) -> None:
        """Ask the runtime to unload the model, and do not wait. Raises RuntimeUnavailable."""
        self._runtime.unload(place)

    def find(self, place: str) -> LoadedModel | None:
        """Return the model in this place as the runtime lists it, or None if it is not in memory.

        A stuck model has no place here. Raises RuntimeUnavailable.
        """
        listed = self._runtime.loaded()
        return self._store.read().runner_at(place, listed)

    def unload_untracked(self, places: set[str]) -> None:
        """Unload models that have no place in the registry. One that does not go is stuck then.

        Raises RuntimeUnavailable if the runtime cannot be reached.
        """
        for place in places:
            log.warning("untracked_model_unloaded", extra={"model": place})
            try:
                self.unload_and_wait(place)
            except ShuttingDown:
                raise
            except MesError as exc:
                self._add_stuck(place, exc)

    def _add_stuck(self, place: str, error: MesError) -> None:
        runner = self.find(place)
        if runner is None:
            return
        log.warning("unload_failed", extra={"model": place, "reason": error.detail})
        with self._store.transaction() as state:
            now = time.monotonic()
            stuck = StuckRunner(runner.name, runner.digest, NOT_UNLOADED, now, runner.size_bytes)
            state.unloading.pop(place, None)
            state.add_stuck(stuck, now)
            state.unload_failures[stuck.key] = self.cooldown.after(None, error.detail, now)

    def _load(self, spec: ModelSpec) -> None:
        try:
            self._runtime.load(spec, deadline=time.monotonic() + self._load_timeout)
        except LoadTimeout as exc:
            limit = f"{format_number(self._load_timeout)} s (LOAD_TIMEOUT)"
            raise LoadTimeout(f"{spec.id} was not loaded within {limit}; raise it") from exc

    def _load_again(self, spec: ModelSpec) -> None:
        try:
            self._load(spec)
        except LoadFailed as exc:
            raise ModelUnavailable(f"{spec.id} could not be loaded: {exc.detail}") from exc

    def _make_room(self, ticket: str) -> None:
        """Wait until the model can be loaded without exceeding the number of models in memory.

        Untracked models may be in its way: a worker that died while it swapped models leaves one
        behind, and so does a restart, or a person with `ollama run`. They are unloaded here. Models
        that another ticket unloads are in the way until they have left memory.
        """
        deadline = time.monotonic() + self._unload_timeout
        pauses = _pauses()
        while not self._has_room(ticket):
            if time.monotonic() > deadline:
                raise RuntimeUnavailable(
                    f"the runtime has not made room within {format_number(self._unload_timeout)} s"
                )
            time.sleep(next(pauses))

    def _has_room(self, ticket: str) -> bool:
        """Return whether there was room; if not, unload the untracked models that were in the way.

        Models that another ticket is unloading are left to it.
        """
        # Listed before the state is read: a model that loses its place after that is in the list,
        # so a later call, or another ticket, finds it.
        listed = self._runtime.loaded()
        with self._store.transaction() as state:
            if state.stuck_in_the_way:
                raise PlaceLost
            places = state.places_of(listed)
            full = overfull(state, places)
            claimed = claim_untracked(state, places, ticket)
        try:
            self.unload_untracked(claimed)
        finally:
            if claimed:
                with self._store.transaction() as state:
                    state.release(claimed, time.monotonic())
        return not full


def _pauses() -> Iterator[float]:
    return doubling_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)


def resident_fields(loaded: LoadedModel) -> dict[str, Any]:
    """Return the fields of a resident that the runtime reports for a model in memory."""
    return {
        "digest": loaded.digest,
        "quantization": loaded.quantization,
        "size_bytes": loaded.size_bytes,
        "vram_bytes": loaded.vram_bytes,
    }
