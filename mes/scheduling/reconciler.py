"""The reconciler: keeps the registry in agreement with the runtime, for all workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from mes.domain import LoadedModel, ModelSpec, PulledModel, Runtime
from mes.errors import MesError, RuntimeUnavailable, ShuttingDown, StateUnavailable
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.model_loader import ModelLoader, resident_fields
from mes.scheduling.registry import UNLOAD
from mes.scheduling.runtime_status import CapabilityCache, RuntimeStatus, RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.state import State, claim_untracked
from mes.scheduling.workers import WorkerProcess

log = logging.getLogger(__name__)

_RECONCILE_INTERVAL_SECONDS = 1.0
# Within this time a model that was pulled can be used, whether MES pulled it or not.
_LIST_DISK_INTERVAL_SECONDS = 3.0

# Names of background operations.
_GET_CAPABILITIES = "get capabilities"
_UNLOAD_UNTRACKED = "unload untracked models"


class AlwaysConnected:
    """A `domain.Client` that never disconnects: MES itself."""

    disconnected = False

    def on_disconnect(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class Reconciler:
    """Observes the runtime, corrects the registry, preloads models and unloads idle ones.

    Operations that may take long run in background threads, each name once at a time.

    Args:
        instance: A name of this start of the service, in which each model is preloaded once.
        idle_unload_seconds: Models that were unused for this long are unloaded; 0 for never.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        coordinator: Coordinator,
        worker: WorkerProcess,
        scheduler: Scheduler,
        model_loader: ModelLoader,
        runtime_status: RuntimeStatusFile,
        instance: str,
        idle_unload_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._coordinator = coordinator
        self._worker = worker
        self._scheduler = scheduler
        self._model_loader = model_loader
        self._capability_cache = CapabilityCache(runtime)
        self._runtime_status = runtime_status
        self._instance = instance
        self._idle_unload_seconds = idle_unload_seconds
        self._next_round = 0.0
        self._next_disk_listing = 0.0
        self._background: dict[str, threading.Thread] = {}
        self._listed_before: set[str] = set()

    def run(self) -> None:
        """Run a round if one is due; while the runtime is down, one is due in each call.

        Raises StateUnavailable.
        """
        now = time.monotonic()
        runtime_status = self._runtime_status.current()
        if now < self._next_round and runtime_status.up:
            return
        self._next_round = now + _RECONCILE_INTERVAL_SECONDS
        try:
            self._observe(runtime_status)
        except StateUnavailable:
            raise  # the runtime is not the cause
        except MesError as exc:
            self._mark_down(runtime_status, exc)
            return
        self._preload()
        self._unload_idle_models()

    @property
    def is_busy(self) -> bool:
        """Whether a background operation still runs."""
        return any(operation.is_alive() for operation in self._background.values())

    # Observing the runtime

    def _observe(self, earlier: RuntimeStatus) -> None:
        residency = self._coordinator.read().residency
        listed = self._runtime.loaded()
        was_down = not earlier.up
        if was_down or time.monotonic() >= self._next_disk_listing:
            earlier = self._list_disk(earlier)
        in_gpu = any(model.vram_bytes for model in listed)
        self._runtime_status.write(
            replace(earlier, up=True, detail="", seen_at=time.monotonic(), in_gpu=in_gpu)
        )
        if was_down:
            log.info("runtime_up", extra={"runtime": earlier.version})
        self._reconcile(listed, residency)
        self._listed_before = {model.name for model in listed}

    def _list_disk(self, earlier: RuntimeStatus) -> RuntimeStatus:
        """Return the status with the runtime's version and the models on its disk."""
        pulled = {
            model.name: self._capability_cache.complete(model, earlier.pulled.get(model.name))
            for model in self._runtime.pulled()
        }
        self._next_disk_listing = time.monotonic() + _LIST_DISK_INTERVAL_SECONDS
        self._request_capabilities(pulled)
        return replace(earlier, version=self._runtime.version(), pulled=pulled)

    def _request_capabilities(self, pulled: Mapping[str, PulledModel]) -> None:
        catalog = self._coordinator.limits.models
        unknown = [
            model
            for model in pulled.values()
            if model.capabilities is None and model.name in catalog
        ]
        if unknown:
            self._run_in_background(_GET_CAPABILITIES, lambda: self._fetch_capabilities(unknown))

    def _fetch_capabilities(self, models: list[PulledModel]) -> None:
        self._capability_cache.fetch(models)
        self._next_round = self._next_disk_listing = 0.0  # report them at once

    def _mark_down(self, earlier: RuntimeStatus, error: MesError) -> None:
        if earlier.up or not earlier.seen_at:
            log.warning("runtime_down", extra={"reason": error.detail})
        down = replace(earlier, up=False, detail=error.detail, in_gpu=False)
        self._runtime_status.write(replace(down, seen_at=time.monotonic()))
        self._drop_missing()

    def _drop_missing(self) -> None:
        """Drop the missing models that are not in use, so that requests do not wait for them.

        Their requests load them, which fails at once while the runtime is down.
        """
        if not any(map(self._coordinator.read().missing, self._coordinator.read().registry)):
            return
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            for model in list(filter(state.missing, state.registry)):
                state.look_for(model, listed=False, now=transaction.now)

    # Correcting the registry

    def _reconcile(self, listed: list[LoadedModel], residency: int) -> None:
        """Correct the registry by the runtime's list of models in memory.

        `residency` is that of the state before the models were listed: if it has changed since,
        the list is stale, and the next round corrects the registry.
        """
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
            self._run_in_background(
                _UNLOAD_UNTRACKED, lambda: self._unload_untracked(claimed, ticket)
            )

    def _check_residents(self, state: State, listed: set[str], now: float) -> None:
        for model in _loaded_before(state):
            if state.ready(model) and model not in listed:
                log.warning("model_missing", extra={"model": model})
            state.look_for(model, listed=model in listed, now=now)
        if any(map(state.missing, state.registry)):
            self._next_round = 0.0  # requests may wait for nothing but the next round

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
        if self._is_running(_UNLOAD_UNTRACKED):
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
            self._coordinator.leave(ticket)  # which releases the models too

    # Preloading and unloading

    def _preload(self) -> None:
        state = self._coordinator.read()
        for spec in self._coordinator.limits.models.values():
            is_due = spec.preload and state.preloaded.get(spec.tag) != self._instance
            if is_due and (state.places_free > 0 or spec.tag in state.registry):
                self._run_in_background(f"preload {spec.id}", partial(self._preload_model, spec))

    def _preload_model(self, spec: ModelSpec) -> None:
        try:
            self._scheduler.load(spec, AlwaysConnected())
        except (RuntimeUnavailable, ShuttingDown, StateUnavailable):
            return  # a later round tries again, maybe one of another worker
        except MesError as exc:
            log.error("preload_failed", extra={"model": spec.id, "code": exc.code})
        with self._coordinator.transaction() as transaction:
            transaction.state.preloaded[spec.tag] = self._instance

    def _unload_idle_models(self) -> None:
        if not self._idle_unload_seconds:
            return
        state, oldest_use = self._coordinator.read(), time.monotonic() - self._idle_unload_seconds
        for model in state.registry.evictable():
            spec = self._coordinator.limits.models.get(model)
            is_idle = state.registry.peek(model).used_at < oldest_use
            if spec is not None and is_idle and not spec.pinned:
                unload = partial(self._scheduler.unload, spec, AlwaysConnected())
                self._run_in_background(f"unload {spec.id}", unload)

    def _run_in_background(self, name: str, operation: Callable[[], None]) -> None:
        """Run the operation in a thread, unless one of that name still runs."""
        if self._is_running(name):
            return
        self._background[name] = threading.Thread(
            target=_run_logged, args=(name, operation), daemon=True
        )
        self._background[name].start()

    def _is_running(self, name: str) -> bool:
        thread = self._background.get(name)
        return thread is not None and thread.is_alive()


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


def _run_logged(name: str, operation: Callable[[], None]) -> None:
    try:
        operation()
    except MesError as exc:
        log.warning(
            "reconcile_failed", extra={"operation": name, "code": exc.code, "reason": exc.detail}
        )
