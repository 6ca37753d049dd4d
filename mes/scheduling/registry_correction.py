"""The correction of the registry by the runtime's list of the models in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial

from mes.domain import LoadedModel, ModelSpec, PulledModel
from mes.errors import MesError
from mes.scheduling.background import BackgroundOperations
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.model_loader import ModelLoader, resident_fields
from mes.scheduling.registry import UNLOAD, Resident
from mes.scheduling.runner_names import RunnerNames
from mes.scheduling.state import State
from mes.scheduling.stuck_correction import correct_names, forget_gone, gone_keys, stuck_changes
from mes.scheduling.untracked_models import claim_untracked
from mes.scheduling.workers import WorkerProcess

log = logging.getLogger(__name__)

# For so long a model that is asked again to leave memory serves no requests.
_AGAIN_SECONDS = 2.0

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

    def run(
        self, listed: list[LoadedModel], residency: int, pulled: Mapping[str, PulledModel] | None
    ) -> None:
        """Correct the registry by the runtime's list of models in memory.

        Args:
            listed: The models that the runtime lists.
            residency: That of the state before the models were listed: if it has changed since,
                the list is stale, and the next round corrects the registry.
            pulled: The models on disk, listed after `listed`, if the runtime runs the models of one
                digest once. None if it does not, or if they were not listed.
        """
        names = None if pulled is None else RunnerNames(pulled, self._coordinator.limits.models)
        self._correct(listed, residency, names)
        self._listed_before = set(self._coordinator.read().places_of(listed))
        self._retry_unloads()

    def _correct(
        self, listed: list[LoadedModel], residency: int, names: RunnerNames | None
    ) -> None:
        state = self._coordinator.read()
        if not _differs(state, listed) and not (names and stuck_changes(state, listed, names)):
            return
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            if state.residency != residency:
                return
            if names is not None:
                correct_names(transaction, listed, names)
            forget_gone(state, listed, transaction.now)
            places = state.places_of(listed)
            self._check_residents(state, set(places), transaction.now)
            self._adopt(state, listed, transaction.now)
            update_replaced(state, listed)
            ticket = self._worker.new_ticket()
            claimed = self._claim_untracked(state, places, ticket, transaction.now)
        if claimed:
            self._background.run(_UNLOAD_UNTRACKED, lambda: self._unload_untracked(claimed, ticket))

    def _check_residents(self, state: State, places: set[str], now: float) -> None:
        for model in _loaded_before(state):
            if state.ready(model) and model not in places:
                _log_gone(state, model)
            state.look_for(model, listed=model in places, now=now)

    def _adopt(self, state: State, listed: list[LoadedModel], now: float) -> None:
        models = self._coordinator.limits.models
        for runner in listed:
            for place in state.places_of([runner]):
                spec = models.get(place)
                # A model that was listed only once may be unloading, for a worker that died.
                is_new = place in self._listed_before and not state.in_memory(place)
                if spec and is_new and state.places_free > 0 and _is_usable(runner, spec):
                    log.info("model_adopted", extra={"model": spec.id})
                    state.adopt(place, now, **resident_fields(runner))

    def _claim_untracked(
        self, state: State, places: list[str], ticket: str, now: float
    ) -> set[str]:
        """Give the ticket the task to unload the untracked models in the way, and return them."""
        # The operation runs once at a time, so models claimed meanwhile would stay in memory.
        if self._background.is_running(_UNLOAD_UNTRACKED):
            return set()
        claimed = claim_untracked(state, places, ticket)
        if claimed:
            self._join_to_unload(state, ticket, min(claimed), now)
        return claimed

    def _retry_unloads(self) -> None:
        """Ask the runtime again to unload models that it did not unload, if the pause is over.

        No request waits for a stuck model: a later list of the models in memory shows whether it
        has left. One that is idle serves no requests until then, for a short time. A model in use
        may be chosen as a victim again, so that it is unloaded when another one needs its place.
        """
        state, now = self._coordinator.read(), time.monotonic()
        due = [key for key, each in state.unload_failures.items() if each.until <= now]
        for key in filter(partial(_may_be_asked, state), due):
            model = state.stuck[key].model if key in state.stuck else key
            operation = partial(self._unload_again, key, model)
            self._background.run(f"unload {model} again", operation)
        if any(_is_used_and_kept(state, key) for key in due):
            with self._coordinator.transaction() as transaction:
                state = transaction.state
                due = [key for key in due if key in state.unload_failures]
                state.end_pauses([key for key in due if _is_used_and_kept(state, key)])

    def _unload_again(self, key: str, model: str) -> None:
        ticket = self._worker.new_ticket()
        with self._coordinator.transaction() as transaction:
            state, failure = transaction.state, transaction.state.unload_failures.get(key)
            if failure is None or not _may_be_asked(state, key):
                return  # a request has come meanwhile
            state.unload_failures[key] = self._model_loader.cooldown.after(
                failure, failure.detail, transaction.now
            )
            resident = None
            if key in state.registry:
                self._join_to_unload(state, ticket, model, transaction.now)
                resident = state.set_aside(key, ticket, transaction.now)
        if resident is None:
            self._model_loader.request_unload(model)
        else:
            self._unload_set_aside(resident, ticket)

    def _unload_set_aside(self, resident: Resident, ticket: str) -> None:
        """Ask the runtime to unload an idle model; one that stays in memory serves again."""
        try:
            self._model_loader.unload_and_wait(resident.model, seconds=_AGAIN_SECONDS)
        except MesError:
            self._put_back(resident, ticket)
            raise
        finally:
            self._coordinator.leave(ticket)  # also if the state could not be changed

    def _put_back(self, resident: Resident, ticket: str) -> None:
        with self._coordinator.transaction() as transaction:
            # Another worker may have taken this one for dead, and have adopted the model.
            if transaction.state.unloading.get(resident.model) == ticket:
                transaction.state.put_back(resident, transaction.now)

    def _join_to_unload(self, state: State, ticket: str, model: str, now: float) -> None:
        """Join with a ticket whose task, to unload, this worker carries out at once."""
        state.join(ticket, self._worker.id, model, UNLOAD, now).task = UNLOAD

    def _unload_untracked(self, places: set[str], ticket: str) -> None:
        try:
            self._model_loader.unload_untracked(places)
        finally:
            self._coordinator.leave(ticket)  # which releases the models too


def _may_be_asked(state: State, key: str) -> bool:
    """Return whether no request uses the model, and none has it unloaded."""
    is_used = state.in_use(key) or key in state.wanted or key in state.unloading
    return key in state.stuck or not is_used


def _is_used_and_kept(state: State, key: str) -> bool:
    is_used = state.in_use(key) or key in state.wanted
    return key in state.registry and is_used and not state.unload_failures[key].is_over


def _differs(state: State, listed: list[LoadedModel]) -> bool:
    """Return whether the registry and the list differ, or a model is missing."""
    loaded, places = set(_loaded_before(state)), set(state.places_of(listed))
    gone = loaded - places or any(map(state.missing, loaded)) or gone_keys(state, listed)
    untracked = places - set(state.registry) - set(state.unloading)
    return bool(gone or untracked or _replaced(state, listed))


def _log_gone(state: State, place: str) -> None:
    if place in state.unload_failures:
        log.info("unloaded", extra={"model": place})
    else:
        log.warning("model_missing", extra={"model": place})


def update_replaced(state: State, listed: list[LoadedModel]) -> None:
    """Correct the residents of which the runtime lists another version."""
    for place, runner in _replaced(state, listed).items():
        if state.registry.peek(place).digest is not None:
            log.warning("model_replaced", extra={"model": place, "digest": runner.digest})
        state.correct(place, **resident_fields(runner))


def _replaced(state: State, listed: list[LoadedModel]) -> dict[str, LoadedModel]:
    """Return the listed models whose digest differs from that of the ready resident, by place."""
    # Of two models with one name the last counts, so that the two do not replace each other.
    by_place = {place: each for each in listed for place in state.places_of([each])}
    return {
        place: each
        for place, each in by_place.items()
        if state.ready(place) and state.registry.peek(place).digest != each.digest
    }


def _loaded_before(state: State) -> list[str]:
    """Return the residents whose load is complete, whether or not they are missing now."""
    return [model for model in state.registry if state.ready(model) or state.missing(model)]


def _is_usable(model: LoadedModel, spec: ModelSpec) -> bool:
    """Return whether the model was loaded with the context length that MES would load it with.

    Otherwise its first request would reload it.
    """
    wanted = spec.load_options.get("num_ctx")
    return None in (wanted, model.context_length) or wanted == model.context_length
