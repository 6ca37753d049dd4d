"""Preloading: models are loaded at the start of the service, and unloaded when long unused."""

from __future__ import annotations

import logging
import time
from functools import partial

from mes.domain import ModelSpec
from mes.errors import MesError, RuntimeUnavailable, ShuttingDown, StateUnavailable
from mes.scheduling.background import AlwaysConnected, BackgroundOperations
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


class Preloading:
    """Preloads models, and unloads idle or excess ones, in the background.

    Args:
        instance: A name of this start of the service, in which each model is preloaded once.
        idle_unload_seconds: Models that were unused for this long are unloaded; 0 for never.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        scheduler: Scheduler,
        background: BackgroundOperations,
        instance: str,
        idle_unload_seconds: float,
    ) -> None:
        self._coordinator = coordinator
        self._scheduler = scheduler
        self._background = background
        self._instance = instance
        self._idle_unload_seconds = idle_unload_seconds

    def run(self) -> None:
        """Begin what is due."""
        self._preload()
        self._unload_idle_models()
        self._unload_excess()

    def _preload(self) -> None:
        state = self._coordinator.read()
        for spec in self._coordinator.limits.models.values():
            is_due = spec.preload and state.preloaded.get(spec.tag) != self._instance
            if is_due and (state.places_free > 0 or spec.tag in state.registry):
                self._background.run(f"preload {spec.id}", partial(self._preload_model, spec))

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
                self._background.run(f"unload {spec.id}", unload)

    def _unload_excess(self) -> None:
        """Unload an idle model if stuck ones have made too many, but not the last that serves."""
        state = self._coordinator.read()
        victim = state.registry.victim()
        spec = None if victim is None else self._coordinator.limits.models.get(victim)
        if spec is None or not state.stuck_in_the_way or len(state.registry) < 2:
            return
        if victim not in state.wanted:
            unload = partial(self._scheduler.unload, spec, AlwaysConnected())
            self._background.run(f"unload {spec.id}", unload)
