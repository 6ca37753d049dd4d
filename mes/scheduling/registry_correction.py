"""The correction of the registry by the runtime's list of the models in memory."""

from __future__ import annotations

import logging

from mes.domain import LoadedModel, ModelSpec
from mes.scheduling.background import BackgroundOperations
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.model_loader import ModelLoader, resident_fields
from mes.scheduling.registry import UNLOAD
from mes.scheduling.state import State
from mes.scheduling.untracked_models import claim_untracked
from mes.scheduling.workers import WorkerProcess

log = logging.getLogger(__name__)

# The name of a background operation.
_UNLOAD_UNTRACKED = "unload untracked models"


class RegistryCorrection:
    """Corrects the registry, and unloads untracked models that are in the way."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        worker: WorkerProcess,
        model_loader: ModelLoader,
        background: BackgroundOperations,
    ) -> None:
        self._coordinator = coordinator
        self._worker = worker
        self._model_loader = model_loader
        self._background = background
        self._listed_before: set[str] = set()

    def run(self, listed: list[LoadedModel], residency: int) -> None:
        """Correct the registry by the runtime's list of models in memory.

        `residency` is that of the state before the models were listed: if it has changed since,
        the list is stale, and the next round corrects the registry.
        """
        self._correct(listed, residency)
        self._listed_before = {model.name for model in listed}

    def _correct(self, listed: list[LoadedModel], residency: int) -> None:
        names = {model.name for model in listed}
        state = self._coordinator.read()
        if not _differs(state, names) and not _replaced(state, listed):
            return
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            if state.residency != residency:
                return
            self._check_residents(state, names, transaction.now)
            self._adopt(state, listed, transaction.now)
            self._update_replaced(state, listed)
            ticket = self._worker.new_ticket()
            claimed = self._claim_untracked(state, names, ticket, transaction.now)
        if claimed:
            self._background.run(_UNLOAD_UNTRACKED, lambda: self._unload_untracked(claimed, ticket))

    def _check_residents(self, state: State, listed: set[str], now: float) -> None:
        for model in _loaded_before(state):
            if state.ready(model) and model not in listed:
                log.warning("model_missing", extra={"model": model})
            state.look_for(model, listed=model in listed, now=now)

    def _adopt(self, state: State, listed: list[LoadedModel], now: float) -> None:
        models = self._coordinator.limits.models
        for model in listed:
            spec = models.get(model.name)
            # A model that was listed only once may be unloading, for a worker that died.
            is_new = model.name in self._listed_before and not state.in_memory(model.name)
            if spec is not None and is_new and state.places_free > 0 and _is_usable(model, spec):
                log.info("model_adopted", extra={"model": spec.id})
                state.adopt(model.name, now, **resident_fields(model))

    def _update_replaced(self, state: State, listed: list[LoadedModel]) -> None:
        for model in _replaced(state, listed):
            log.warning("model_replaced", extra={"model": model.name, "digest": model.digest})
            state.correct(model.name, **resident_fields(model))

    def _claim_untracked(self, state: State, listed: set[str], ticket: str, now: float) -> set[str]:
        """Give the ticket the task to unload the untracked models in the way, and return them."""
        # The operation runs once at a time, so models claimed meanwhile would stay in memory.
        if self._background.is_running(_UNLOAD_UNTRACKED):
            return set()
        claimed = claim_untracked(state, listed, ticket)
        if claimed:
            joined = state.join(ticket, self._worker.id, min(claimed), UNLOAD, now)
            joined.task = UNLOAD
        return claimed

    def _unload_untracked(self, names: set[str], ticket: str) -> None:
        try:
            self._model_loader.unload_untracked(names)
        finally:
            with self._coordinator.transaction() as transaction:
                transaction.state.release(names, transaction.now)
                transaction.state.leave(ticket, transaction.now)


def _differs(state: State, listed: set[str]) -> bool:
    """Return whether the registry and the list differ, or a model is missing."""
    loaded = set(_loaded_before(state))
    gone = loaded - listed or any(map(state.missing, loaded))
    return bool(gone or listed - set(state.registry) - set(state.unloading))


def _replaced(state: State, listed: list[LoadedModel]) -> list[LoadedModel]:
    """Return the listed models whose digest differs from that of the ready resident."""
    # Of two models with one name the last counts, so that the two do not replace each other.
    by_name = {model.name: model for model in listed if state.ready(model.name)}
    return [m for m in by_name.values() if state.registry.peek(m.name).digest != m.digest]


def _loaded_before(state: State) -> list[str]:
    """Return the residents whose load is complete, whether or not they are missing now."""
    return [model for model in state.registry if state.ready(model) or state.missing(model)]


def _is_usable(model: LoadedModel, spec: ModelSpec) -> bool:
    """Return whether the model was loaded with the context length that MES would load it with.

    Otherwise its first request would reload it.
    """
    wanted = spec.load_options.get("num_ctx")
    return None in (wanted, model.context_length) or wanted == model.context_length
