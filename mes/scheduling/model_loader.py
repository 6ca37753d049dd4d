"""Loading and unloading models in the runtime: slow, and therefore outside of transactions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from mes.domain import LoadedModel, ModelSpec, Runtime
from mes.errors import (
    LoadFailed,
    LoadTimeout,
    MesError,
    ModelUnavailable,
    RuntimeUnavailable,
    ShuttingDown,
    StateUnavailable,
    format_number,
)
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.registry import LOAD, LoadFailure, Refusal, Ticket
from mes.scheduling.state import claim_untracked, overfull
from mes.scheduling.store import Store

log = logging.getLogger(__name__)

# The pauses between queries whether a model has left memory: most leave soon.
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.2


class ModelLoader:
    """Loads and unloads models in the runtime, as the policy has decided.

    Args:
        runtime: The runtime.
        store: The shared state.
        load_timeout_seconds: The longest time for one attempt to load a model.
        unload_timeout_seconds: The longest time for a model to leave memory.
        retry_pause_seconds: The pause before the second attempt to load a model.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        *,
        load_timeout_seconds: float,
        unload_timeout_seconds: float,
        retry_pause_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._load_timeout = load_timeout_seconds
        self._unload_timeout = unload_timeout_seconds
        self._retry_pause = retry_pause_seconds

    def load(self, spec: ModelSpec, ticket: str) -> dict[str, Any]:
        """Load the model for a ticket, in two attempts; return the fields of its resident.

        Raises:
            ModelUnavailable: both attempts failed.
            LoadTimeout: an attempt took too long.
            ModelNotPulled: the model is not on the runtime's disk.
            RuntimeUnavailable: the runtime cannot be reached, or has not made room in time.
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
        return self._resident_fields(spec.tag)

    def unload_and_wait(self, name: str) -> None:
        """Unload the model and wait until the runtime no longer lists it.

        Raises:
            RuntimeUnavailable: the runtime cannot be reached, or still lists the model at the end
                of the time.
        """
        started = time.monotonic()
        self._runtime.unload(name)
        pauses = _pauses()
        while any(model.name == name for model in self._runtime.loaded()):
            if time.monotonic() > started + self._unload_timeout:
                limit = format_number(self._unload_timeout)
                raise RuntimeUnavailable(f"the runtime has not unloaded {name} within {limit} s")
            time.sleep(next(pauses))
        log.info("unloaded", extra={"model": name, "seconds": time.monotonic() - started})

    def unload_untracked(self, names: set[str]) -> None:
        """Unload models that have no place in the registry. Raises RuntimeUnavailable."""
        for name in names:
            log.warning("untracked_model_unloaded", extra={"model": name})
            self.unload_and_wait(name)

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

    def _resident_fields(self, name: str) -> dict[str, Any]:
        loaded = next((model for model in self._runtime.loaded() if model.name == name), None)
        return {} if loaded is None else resident_fields(loaded)

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
        listed = {model.name for model in self._runtime.loaded()}
        with self._store.transaction() as state:
            full = overfull(state, listed)
            claimed = claim_untracked(state, listed, ticket)
        try:
            self.unload_untracked(claimed)
        finally:
            if claimed:
                with self._store.transaction() as state:
                    state.release(claimed, time.monotonic())
        return not full


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def resident_fields(loaded: LoadedModel) -> dict[str, Any]:
    """Return the fields of a resident that the runtime reports for a model in memory."""
    return {
        "digest": loaded.digest,
        "quantization": loaded.quantization,
        "size_bytes": loaded.size_bytes,
        "vram_bytes": loaded.vram_bytes,
    }


class LoadTasks:
    """Carries out the tasks of waiting tickets, outside the lock, and records the outcome.

    A model that cannot be loaded cools down: for `cooldown_seconds` after the first failure, twice
    as long after each further one, at most `cooldown_max_seconds`.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        model_loader: ModelLoader,
        *,
        cooldown_seconds: float,
        cooldown_max_seconds: float,
    ) -> None:
        self._coordinator = coordinator
        self._model_loader = model_loader
        self._cooldown_seconds = cooldown_seconds
        self._cooldown_max_seconds = cooldown_max_seconds

    def run(self, ticket: Ticket, spec: ModelSpec) -> None:
        """Carry out the task of the ticket. If it fails, all tickets for its model are refused.

        Raises:
            ShuttingDown: the service stops; the task is undone when the ticket leaves.
            StateUnavailable: the outcome cannot be recorded; the task is undone likewise.
        """
        if ticket.task == LOAD:
            self._load(ticket, spec)
        else:
            self._unload(ticket, spec)

    def _load(self, ticket: Ticket, spec: ModelSpec) -> None:
        try:
            fields = self._model_loader.load(spec, ticket.id)
        except (ShuttingDown, StateUnavailable):
            raise  # the next ticket that waits for the model, maybe in another worker, loads it
        except MesError as exc:
            with self._coordinator.transaction() as transaction:
                transaction.state.drop(spec.tag, transaction.now)
                self._refuse_all(transaction, spec, exc)
            return
        with self._coordinator.transaction() as transaction:
            # Absent if a reload has lowered MAX_LOADED_MODELS meanwhile.
            if spec.tag in transaction.state.registry:
                transaction.state.finish_load(spec.tag, transaction.now, **fields)
            transaction.state.finish_task(ticket.id)

    def _unload(self, ticket: Ticket, spec: ModelSpec) -> None:
        assert ticket.victim is not None
        error = None
        try:
            self._model_loader.unload_and_wait(ticket.victim)
        except ShuttingDown:
            raise
        except MesError as exc:
            error = exc
        with self._coordinator.transaction() as transaction:
            transaction.state.release({ticket.victim}, transaction.now)
            transaction.state.finish_task(ticket.id)
            if error is not None:
                self._refuse_all(transaction, spec, error)

    def _refuse_all(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> None:
        """Refuse all tickets that wait for the model, with this error."""
        log.error("load_abandoned", extra={"model": spec.id, "code": error.code})
        state, retry_after = transaction.state, error.retry_after
        if isinstance(error, ModelUnavailable):
            retry_after = self._cool_down(transaction, spec, error)
        for ticket in [t for t in state.tickets.values() if t.model == spec.tag]:
            state.refuse(ticket, Refusal(ticket.worker, error.code, error.detail, retry_after))
            transaction.to_wake.append(ticket)

    def _cool_down(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> float:
        """Begin the cooldown of the model, and return its length in seconds."""
        earlier = transaction.state.load_failures.get(spec.tag)
        failures = 1 if earlier is None else earlier.failures + 1
        doubled: float = self._cooldown_seconds * 2 ** (failures - 1)
        seconds = min(doubled, self._cooldown_max_seconds)
        transaction.state.load_failures[spec.tag] = LoadFailure(
            failures, transaction.now + seconds, error.detail
        )
        return seconds
