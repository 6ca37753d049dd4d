"""Errands: what the keeper sees to at the runtime, for all workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from mes.domain import LoadedModel, ModelSpec, PulledModel, Runtime
from mes.errors import MesError, RuntimeUnavailable, ShuttingDown
from mes.scheduling.board import Board
from mes.scheduling.cards import Cards
from mes.scheduling.loader import Loader, facts
from mes.scheduling.records import UNLOAD
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.sight import SharedSight, Sight
from mes.scheduling.state import State
from mes.scheduling.strangers import claim_strangers
from mes.scheduling.worker import Worker

log = logging.getLogger(__name__)

_LOOKS_EVERY_SECONDS = 1.0
# Soon enough for a model just pulled, by MES or by hand.
_LOOKS_AT_DISK_EVERY_SECONDS = 3.0

_STRANGERS = "strangers"


class Nobody:
    """A caller that never hangs up: MES itself (domain.Caller)."""

    disconnected = False

    def on_disconnect(self, act: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class Errands:
    """Looks at the runtime, puts the registry right by it, preloads, and unloads the idle."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        board: Board,
        worker: Worker,
        scheduler: Scheduler,
        loader: Loader,
        sight: SharedSight,
        instance: str,
        idle_unload_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._board = board
        self._worker = worker
        self._scheduler = scheduler
        self._loader = loader
        self._cards = Cards(runtime)
        self._sight = sight
        self._instance = instance
        self._idle_unload_seconds = idle_unload_seconds
        self._next_wakeup = 0.0
        self._next_look_at_disk = 0.0
        self._aside: dict[str, threading.Thread] = {}
        self._listed_before: set[str] = set()

    def run(self) -> None:
        """One round. A runtime that is down is looked at in each, so that its return shows."""
        now = time.monotonic()
        sight = self._sight.current()
        if now < self._next_wakeup and sight.up:
            return
        self._next_wakeup = now + _LOOKS_EVERY_SECONDS
        try:
            self._look(sight)
        except MesError as exc:
            self._note_down(sight, exc)
            return
        self._preload()
        self._unload_the_idle()

    @property
    def open_exchanges(self) -> bool:
        """Is something still being done in the background?"""
        return any(operation.is_alive() for operation in self._aside.values())

    # Looking

    def _look(self, earlier: Sight) -> None:
        before = self._board.read().residency
        listed = self._runtime.loaded()
        back = not earlier.up
        if back or time.monotonic() >= self._next_look_at_disk:
            earlier = self._look_at_disk(earlier)
        in_gpu = any(model.vram_bytes for model in listed)
        self._sight.write(
            replace(earlier, up=True, detail="", seen_at=time.monotonic(), in_gpu=in_gpu)
        )
        if back:
            log.info("runtime_up", extra={"runtime": earlier.version})
        self._reconcile(listed, before)
        self._listed_before = {model.name for model in listed}

    def _look_at_disk(self, earlier: Sight) -> Sight:
        before = earlier.pulled
        pulled = {
            model.name: self._cards.complete(model, before.get(model.name))
            for model in self._runtime.pulled()
        }
        self._next_look_at_disk = time.monotonic() + _LOOKS_AT_DISK_EVERY_SECONDS
        self._ask_for_cards(pulled)  # and look again once they have come
        return replace(earlier, version=self._runtime.version(), pulled=pulled)

    def _ask_for_cards(self, pulled: Mapping[str, PulledModel]) -> None:
        catalog = self._board.limits.models
        unknown = [it for it in pulled.values() if it.capabilities is None and it.name in catalog]
        if unknown:
            self._in_the_background("cards", lambda: self._learn(unknown))

    def _learn(self, unknown: list[PulledModel]) -> None:
        self._cards.ask(unknown)
        self._next_wakeup = self._next_look_at_disk = 0.0

    def _note_down(self, earlier: Sight, error: MesError) -> None:
        if earlier.up or not earlier.seen_at:
            log.warning("runtime_down", extra={"reason": error.detail})
        down = replace(earlier, up=False, detail=error.detail, in_gpu=False)
        self._sight.write(replace(down, seen_at=time.monotonic()))

    # Putting right

    def _reconcile(self, listed: list[LoadedModel], before: int) -> None:
        """Make the registry agree with the runtime, unless it has changed while we looked."""
        names = {model.name for model in listed}
        present = self._board.read()
        if not _differs(present, names) and not _replaced(present, listed):
            return
        with self._board.change() as change:
            state = change.state
            if state.residency != before:
                return
            self._look_for_the_loaded(state, names, change.now)
            self._adopt(state, listed, change.now)
            self._correct(state, listed)
            ticket = self._worker.new_ticket()
            # Whoever claims must see out; while the last ones are seen out, nobody would.
            free = not self._runs(_STRANGERS)
            claimed = claim_strangers(state, names, ticket) if free else set()
            if claimed:
                operation = state.join(ticket, self._worker.id, min(claimed), UNLOAD, change.now)
                operation.duty = UNLOAD
        if claimed:
            self._in_the_background(_STRANGERS, lambda: self._see_out(claimed, ticket))

    def _look_for_the_loaded(self, state: State, listed: set[str], now: float) -> None:
        for model in _settled(state):
            if state.ready(model) and model not in listed:
                log.warning("model_gone", extra={"model": model})
            state.look_for(model, listed=model in listed, now=now)
        if any(map(state.missing, state.registry)):
            self._next_wakeup = 0.0  # those who wait for it wait for this alone

    def _adopt(self, state: State, listed: list[LoadedModel], now: float) -> None:
        models = self._board.limits.models
        for model in listed:
            spec = models.get(model.name)
            # Seen once, it may be on its way out: a worker that died has asked it to leave.
            unknown = model.name in self._listed_before and not state.in_memory(model.name)
            if spec is not None and unknown and state.places_free > 0 and _fits(model, spec):
                log.info("model_adopted", extra={"model": spec.id})
                state.adopt(model.name, now, **facts(model))

    def _correct(self, state: State, listed: list[LoadedModel]) -> None:
        for model in _replaced(state, listed):
            log.warning("model_replaced", extra={"model": model.name, "digest": model.digest})
            state.correct(model.name, **facts(model))

    def _see_out(self, names: set[str], ticket: str) -> None:
        try:
            self._loader.see_strangers_out(names)
        finally:
            with self._board.change() as change:
                change.state.release(names, change.now)
                change.state.leave(ticket, change.now)

    # Preloading, unloading

    def _preload(self) -> None:
        state = self._board.read()
        for spec in self._board.limits.models.values():
            wanted = spec.preload and state.preloaded.get(spec.tag) != self._instance
            if wanted and (state.places_free > 0 or spec.tag in state.registry):
                self._in_the_background(f"preload {spec.id}", partial(self._bring_in, spec))

    def _bring_in(self, spec: ModelSpec) -> None:
        try:
            self._scheduler.load(spec, Nobody())
        except (RuntimeUnavailable, ShuttingDown):
            return  # again when it is back; by the service that starts next
        except MesError as exc:
            log.error("preload_failed", extra={"model": spec.id, "code": exc.code})
        with self._board.change() as change:
            change.state.preloaded[spec.tag] = self._instance

    def _unload_the_idle(self) -> None:
        if not self._idle_unload_seconds:
            return
        state, oldest = self._board.read(), time.monotonic() - self._idle_unload_seconds
        for model in state.registry.evictable():
            spec = self._board.limits.models.get(model)
            idle = state.registry[model].used_at < oldest
            if spec is not None and idle and not spec.pinned:
                unload = partial(self._scheduler.unload, spec, Nobody())
                self._in_the_background(f"unload {spec.id}", unload)

    def _in_the_background(self, name: str, operation: Callable[[], None]) -> None:
        """Run what may take long in a thread of its own, once at a time."""
        if self._runs(name):
            return
        self._aside[name] = threading.Thread(target=_logged, args=(name, operation), daemon=True)
        self._aside[name].start()

    def _runs(self, name: str) -> bool:
        running = self._aside.get(name)
        return running is not None and running.is_alive()


def _differs(state: State, listed: set[str]) -> bool:
    settled = set(_settled(state))
    gone = settled - listed or any(map(state.missing, settled))
    return bool(gone or listed - set(state.registry) - set(state.leaving))


def _replaced(state: State, listed: list[LoadedModel]) -> list[LoadedModel]:
    """Those that are other models than we loaded under their names."""
    # Of two under one name the last, so that the two do not take turns.
    by_name = {model.name: model for model in listed if state.ready(model.name)}
    return [m for m in by_name.values() if state.registry[m.name].digest != m.digest]


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
        log.warning("errand_failed", extra={"errand": name, "code": exc.code, "reason": exc.detail})
