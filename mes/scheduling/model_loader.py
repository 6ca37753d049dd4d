"""Loading and unloading models in the runtime: slow, and therefore outside of transactions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from mes.domain import LoadedModel, ModelSpec, Runtime
from mes.errors import LoadFailed, MesError, ModelUnavailable, RuntimeUnavailable, ShuttingDown
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.registry import LOAD, LoadFailure, Refusal, Ticket
from mes.scheduling.state import claim_untracked, overfull
from mes.scheduling.store import Store

# The loader: brings models into the runtime's memory and sees them out. Slow, so never locked.

log = logging.getLogger(__name__)

_FIRST_LOOK_SECONDS = 0.01
_LATER_LOOKS_SECONDS = 0.2


class ModelLoader:
    """Carries out what the policy has decided. The deadline of each step is its own."""

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
        """Load the model, once more after a pause if that fails; what the runtime says of it.

        Raises LoadTimeout, ModelNotPulled, RuntimeUnavailable; ModelUnavailable where the second
        try failed too.
        """
        started = time.monotonic()
        self._clear_the_way(ticket)
        try:
            self._load(spec)
        except LoadFailed as exc:
            log.warning("load_failed", extra={"model": spec.id, "reason": exc.detail, "try": 1})
            time.sleep(self._retry_pause)
            self._load_again(spec)
        log.info("loaded", extra={"model": spec.id, "seconds": time.monotonic() - started})
        return self._facts(spec.tag)

    def unload_and_wait(self, name: str) -> None:
        """Unload the model and wait until the runtime no longer lists it.

        Raises RuntimeUnavailable where it stays, or where nobody answers.
        """
        started = time.monotonic()
        self._runtime.unload(name)
        pauses = _pauses()
        while any(model.name == name for model in self._runtime.loaded()):
            if time.monotonic() > started + self._unload_timeout:
                raise RuntimeUnavailable(
                    f"the runtime has not unloaded {name} within {self._unload_timeout:g} s"
                )
            time.sleep(next(pauses))
        log.info("unloaded", extra={"model": name, "seconds": time.monotonic() - started})

    def unload_untracked(self, names: set[str]) -> None:
        """Unload models that have no place in the registry. Raises RuntimeUnavailable."""
        for name in names:
            log.warning("untracked_model_unloaded", extra={"model": name})
            self.unload_and_wait(name)

    def _load(self, spec: ModelSpec) -> None:
        self._runtime.load(spec, deadline=time.monotonic() + self._load_timeout)

    def _load_again(self, spec: ModelSpec) -> None:
        try:
            self._load(spec)
        except LoadFailed as exc:
            raise ModelUnavailable(f"{spec.id} could not be loaded: {exc.detail}") from exc

    def _facts(self, name: str) -> dict[str, Any]:
        loaded = next((model for model in self._runtime.loaded() if model.name == name), None)
        return {} if loaded is None else registry_facts(loaded)

    def _clear_the_way(self, ticket: str) -> None:
        """Wait until the load would not be one too many, and unload what is in its way.

        A worker that died while it swapped models leaves such a one behind, a restart does, and so
        does a person with `ollama run`. What others see out is in the way until it has left.
        """
        until = time.monotonic() + self._unload_timeout
        pauses = _pauses()
        while not self._may_begin(ticket):
            if time.monotonic() > until:
                raise RuntimeUnavailable(
                    f"the runtime has not made room within {self._unload_timeout:g} s"
                )
            time.sleep(next(pauses))

    def _may_begin(self, ticket: str) -> bool:
        """Is there room? If not, see out what nobody else sees out."""
        # Looked at before the state: whatever gives up its place after that is somebody's to find.
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
    """Between looks at a model that leaves: most are quick."""
    pause = _FIRST_LOOK_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LATER_LOOKS_SECONDS)


def registry_facts(loaded: LoadedModel) -> dict[str, Any]:
    """What the registry notes of a model in memory."""
    return {
        "digest": loaded.digest,
        "quantization": loaded.quantization,
        "size_bytes": loaded.size_bytes,
        "vram_bytes": loaded.vram_bytes,
    }


# Duties: what a ticket does for everybody while it waits, namely load and unload models.


class LoadTasks:
    """Carries out a ticket's duty outside the lock and notes what came of it.

    A model that could not be loaded cools down: for `cooldown_seconds` after the first failure,
    twice as long after each further one, at most `cooldown_max_seconds`.
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

    def do(self, ticket: Ticket, spec: ModelSpec) -> None:
        """Do what the ticket has to do; its failures become words to those who wait."""
        if ticket.task == LOAD:
            self._load(ticket, spec)
        else:
            self._unload(ticket, spec)

    def _load(self, ticket: Ticket, spec: ModelSpec) -> None:
        try:
            facts = self._model_loader.load(spec, ticket.id)
        except ShuttingDown:
            raise  # others may wait for the model in workers that go on: the next of them loads it
        except MesError as exc:
            with self._coordinator.transaction() as transaction:
                transaction.state.drop(spec.tag, transaction.now)
                self._give_up(transaction, spec, exc)
            return
        with self._coordinator.transaction() as transaction:
            # Absent where a reload has lowered MAX_LOADED_MODELS meanwhile.
            if spec.tag in transaction.state.registry:
                transaction.state.finish_load(spec.tag, transaction.now, **facts)
            transaction.state.finish_task(ticket.id)

    def _unload(self, ticket: Ticket, spec: ModelSpec) -> None:
        assert ticket.victim is not None
        trouble = None
        try:
            self._model_loader.unload_and_wait(ticket.victim)
        except ShuttingDown:
            raise
        except MesError as exc:
            trouble = exc
        with self._coordinator.transaction() as transaction:
            transaction.state.release({ticket.victim}, transaction.now)
            transaction.state.finish_task(ticket.id)
            if trouble is not None:
                self._give_up(transaction, spec, trouble)

    def _give_up(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> None:
        """Tell everybody who waits for the model why it cannot be had."""
        log.error("load_abandoned", extra={"model": spec.id, "code": error.code})
        state, retry_after = transaction.state, error.retry_after
        if isinstance(error, ModelUnavailable):
            retry_after = self._cool_down(transaction, spec, error)
        for ticket in [t for t in state.tickets.values() if t.model == spec.tag]:
            state.refuse(ticket, Refusal(ticket.worker, error.code, error.detail, retry_after))
            transaction.to_wake.append(ticket)

    def _cool_down(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> float:
        earlier = transaction.state.load_failures.get(spec.tag)
        failures = 1 if earlier is None else earlier.failures + 1
        growing: float = self._cooldown_seconds * 2 ** (failures - 1)
        seconds = min(growing, self._cooldown_max_seconds)
        transaction.state.load_failures[spec.tag] = LoadFailure(
            failures, transaction.now + seconds, error.detail
        )
        return seconds
