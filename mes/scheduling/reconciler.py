"""The reconciler: keeps the registry in agreement with the runtime, for all workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from mes.domain import LoadedModel, ModelSpec, PulledModel, Runtime
from mes.errors import (
    MesError,
    ModelNotPulled,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
    ShuttingDown,
)
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.model_loader import ModelLoader, registry_facts
from mes.scheduling.registry import UNLOAD
from mes.scheduling.runtime_status import RuntimeStatus, RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.state import State, claim_untracked
from mes.scheduling.workers import WorkerProcess

# Cards: what each model can do, which the runtime is asked once and beside the keeper's rounds.


class CapabilityCache:
    """The capabilities of models, by name and digest."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def complete(self, model: PulledModel, earlier: PulledModel | None) -> PulledModel:
        """The model with its capabilities: as asked for here, or by the keeper before us."""
        known = self._known.get((model.name, model.digest))
        if known is None and earlier is not None and earlier.digest == model.digest:
            known = earlier.capabilities
        return replace(model, capabilities=known)

    def ask(self, models: Iterable[PulledModel]) -> None:
        """Ask for those of these models, one after the other. Raises RuntimeUnavailable."""
        for model in models:
            self._known[model.name, model.digest] = self._capabilities(model.name)

    def _capabilities(self, name: str) -> tuple[str, ...]:
        try:
            return self._runtime.card(name).capabilities
        except (ModelNotPulled, RuntimeReplyInvalid):
            return ()  # as of a runtime too old to tell: it has to be tried


# Errands: what the keeper sees to at the runtime, for all workers.

log = logging.getLogger(__name__)

_RECONCILE_INTERVAL_SECONDS = 1.0
# Soon enough for a model just pulled, by MES or by hand.
_LOOKS_AT_DISK_EVERY_SECONDS = 3.0

_UNTRACKED = "strangers"


class AlwaysConnected:
    """A caller that never hangs up: MES itself (domain.Caller)."""

    disconnected = False

    def on_disconnect(self, act: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class Reconciler:
    """Looks at the runtime, puts the registry right by it, preloads, and unloads the idle."""

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
        self._capabilities_known = CapabilityCache(runtime)
        self._runtime_status = runtime_status
        self._instance = instance
        self._idle_unload_seconds = idle_unload_seconds
        self._next_wakeup = 0.0
        self._next_look_at_disk = 0.0
        self._background: dict[str, threading.Thread] = {}
        self._listed_before: set[str] = set()

    def run(self) -> None:
        """One round. A runtime that is down is looked at in each, so that its return shows."""
        now = time.monotonic()
        runtime_status = self._runtime_status.current()
        if now < self._next_wakeup and runtime_status.up:
            return
        self._next_wakeup = now + _RECONCILE_INTERVAL_SECONDS
        try:
            self._observe(runtime_status)
        except MesError as exc:
            self._mark_down(runtime_status, exc)
            return
        self._preload()
        self._unload_idle_models()

    @property
    def open_exchanges(self) -> bool:
        """Is something still being done in the background?"""
        return any(operation.is_alive() for operation in self._background.values())

    # Looking

    def _observe(self, earlier: RuntimeStatus) -> None:
        before = self._coordinator.read().residency
        listed = self._runtime.loaded()
        back = not earlier.up
        if back or time.monotonic() >= self._next_look_at_disk:
            earlier = self._observe_disk(earlier)
        in_gpu = any(model.vram_bytes for model in listed)
        self._runtime_status.write(
            replace(earlier, up=True, detail="", seen_at=time.monotonic(), in_gpu=in_gpu)
        )
        if back:
            log.info("runtime_up", extra={"runtime": earlier.version})
        self._reconcile(listed, before)
        self._listed_before = {model.name for model in listed}

    def _observe_disk(self, earlier: RuntimeStatus) -> RuntimeStatus:
        before = earlier.pulled
        pulled = {
            model.name: self._capabilities_known.complete(model, before.get(model.name))
            for model in self._runtime.pulled()
        }
        self._next_look_at_disk = time.monotonic() + _LOOKS_AT_DISK_EVERY_SECONDS
        self._request_capabilities(pulled)  # and look again once they have come
        return replace(earlier, version=self._runtime.version(), pulled=pulled)

    def _request_capabilities(self, pulled: Mapping[str, PulledModel]) -> None:
        catalog = self._coordinator.limits.models
        unknown = [it for it in pulled.values() if it.capabilities is None and it.name in catalog]
        if unknown:
            self._run_in_background("cards", lambda: self._store_capabilities(unknown))

    def _store_capabilities(self, unknown: list[PulledModel]) -> None:
        self._capabilities_known.ask(unknown)
        self._next_wakeup = self._next_look_at_disk = 0.0

    def _mark_down(self, earlier: RuntimeStatus, error: MesError) -> None:
        if earlier.up or not earlier.seen_at:
            log.warning("runtime_down", extra={"reason": error.detail})
        down = replace(earlier, up=False, detail=error.detail, in_gpu=False)
        self._runtime_status.write(replace(down, seen_at=time.monotonic()))

    # Putting right

    def _reconcile(self, listed: list[LoadedModel], before: int) -> None:
        """Make the registry agree with the runtime, unless it has changed while we looked."""
        names = {model.name for model in listed}
        present = self._coordinator.read()
        if not _differs(present, names) and not _replaced(present, listed):
            return
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            if state.residency != before:
                return
            self._look_for_the_loaded(state, names, transaction.now)
            self._adopt(state, listed, transaction.now)
            self._correct(state, listed)
            ticket = self._worker.new_ticket()
            # Whoever claims must see out; while the last ones are seen out, nobody would.
            free = not self._runs(_UNTRACKED)
            claimed = claim_untracked(state, names, ticket) if free else set()
            if claimed:
                operation = state.join(
                    ticket, self._worker.id, min(claimed), UNLOAD, transaction.now
                )
                operation.task = UNLOAD
        if claimed:
            self._run_in_background(_UNTRACKED, lambda: self._unload_and_wait(claimed, ticket))

    def _look_for_the_loaded(self, state: State, listed: set[str], now: float) -> None:
        for model in _settled(state):
            if state.ready(model) and model not in listed:
                log.warning("model_missing", extra={"model": model})
            state.look_for(model, listed=model in listed, now=now)
        if any(map(state.missing, state.registry)):
            self._next_wakeup = 0.0  # those who wait for it wait for this alone

    def _adopt(self, state: State, listed: list[LoadedModel], now: float) -> None:
        models = self._coordinator.limits.models
        for model in listed:
            spec = models.get(model.name)
            # Seen once, it may be on its way out: a worker that died has asked it to leave.
            unknown = model.name in self._listed_before and not state.in_memory(model.name)
            if spec is not None and unknown and state.places_free > 0 and _fits(model, spec):
                log.info("model_adopted", extra={"model": spec.id})
                state.adopt(model.name, now, **registry_facts(model))

    def _correct(self, state: State, listed: list[LoadedModel]) -> None:
        for model in _replaced(state, listed):
            log.warning("model_replaced", extra={"model": model.name, "digest": model.digest})
            state.correct(model.name, **registry_facts(model))

    def _unload_and_wait(self, names: set[str], ticket: str) -> None:
        try:
            self._model_loader.unload_untracked(names)
        finally:
            with self._coordinator.transaction() as transaction:
                transaction.state.release(names, transaction.now)
                transaction.state.leave(ticket, transaction.now)

    # Preloading, unloading

    def _preload(self) -> None:
        state = self._coordinator.read()
        for spec in self._coordinator.limits.models.values():
            wanted = spec.preload and state.preloaded.get(spec.tag) != self._instance
            if wanted and (state.places_free > 0 or spec.tag in state.registry):
                self._run_in_background(
                    f"preload {spec.id}", partial(self._load_in_background, spec)
                )

    def _load_in_background(self, spec: ModelSpec) -> None:
        try:
            self._scheduler.load(spec, AlwaysConnected())
        except (RuntimeUnavailable, ShuttingDown):
            return  # again when it is back; by the service that starts next
        except MesError as exc:
            log.error("preload_failed", extra={"model": spec.id, "code": exc.code})
        with self._coordinator.transaction() as transaction:
            transaction.state.preloaded[spec.tag] = self._instance

    def _unload_idle_models(self) -> None:
        if not self._idle_unload_seconds:
            return
        state, oldest = self._coordinator.read(), time.monotonic() - self._idle_unload_seconds
        for model in state.registry.evictable():
            spec = self._coordinator.limits.models.get(model)
            idle = state.registry.peek(model).used_at < oldest
            if spec is not None and idle and not spec.pinned:
                unload = partial(self._scheduler.unload, spec, AlwaysConnected())
                self._run_in_background(f"unload {spec.id}", unload)

    def _run_in_background(self, name: str, operation: Callable[[], None]) -> None:
        """Run what may take long in a thread of its own, once at a time."""
        if self._runs(name):
            return
        self._background[name] = threading.Thread(
            target=_logged, args=(name, operation), daemon=True
        )
        self._background[name].start()

    def _runs(self, name: str) -> bool:
        running = self._background.get(name)
        return running is not None and running.is_alive()


def _differs(state: State, listed: set[str]) -> bool:
    settled = set(_settled(state))
    gone = settled - listed or any(map(state.missing, settled))
    return bool(gone or listed - set(state.registry) - set(state.unloading))


def _replaced(state: State, listed: list[LoadedModel]) -> list[LoadedModel]:
    """Those that are other models than we loaded under their names."""
    # Of two under one name the last, so that the two do not take turns.
    by_name = {model.name: model for model in listed if state.ready(model.name)}
    return [m for m in by_name.values() if state.registry.peek(m.name).digest != m.digest]


def _settled(state: State) -> list[str]:
    """The models that were loaded, as far as we know."""
    return [model for model in state.registry if state.ready(model) or state.missing(model)]


def _fits(model: LoadedModel, spec: ModelSpec) -> bool:
    """Was it loaded as we would load it? Otherwise its first request would reload it."""
    wanted = spec.load_options.get("num_ctx")
    return None in (wanted, model.context_length) or wanted == model.context_length


def _logged(name: str, operation: Callable[[], None]) -> None:
    try:
        operation()
    except MesError as exc:
        log.warning(
            "reconcile_failed", extra={"operation": name, "code": exc.code, "reason": exc.detail}
        )
