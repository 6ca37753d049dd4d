"""The reconciler: keeps the registry in agreement with the runtime, for all workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from mes.domain import PulledModel, Runtime
from mes.errors import MesError, StateUnavailable
from mes.scheduling.background import BackgroundOperations
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.keep_alive import KeepAlive
from mes.scheduling.model_loader import ModelLoader
from mes.scheduling.places_observer import PlacesObserver
from mes.scheduling.preloading import Preloading
from mes.scheduling.registry_correction import RegistryCorrection
from mes.scheduling.runtime_status import CapabilityCache, RuntimeStatus, RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.stalled_loads import StalledLoads
from mes.scheduling.workers import WorkerProcess

log = logging.getLogger(__name__)

_RECONCILE_INTERVAL_SECONDS = 1.0
# Within this time a model that was pulled, deleted or replaced is noticed.
_LIST_DISK_INTERVAL_SECONDS = 1.0

# The name of a background operation.
_GET_CAPABILITIES = "get capabilities"


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
        self._capability_cache = CapabilityCache(runtime)
        self._runtime_status = runtime_status
        self._background = BackgroundOperations()
        self._correction = RegistryCorrection(
            coordinator=coordinator,
            worker=worker,
            model_loader=model_loader,
            background=self._background,
        )
        self._preloading = Preloading(
            coordinator=coordinator,
            scheduler=scheduler,
            background=self._background,
            instance=instance,
            idle_unload_seconds=idle_unload_seconds,
        )
        self._places_observer = PlacesObserver(coordinator)
        self._stalled_loads = StalledLoads(coordinator)
        self._keep_alive = KeepAlive(
            runtime=runtime,
            coordinator=coordinator,
            worker=worker,
            background=self._background,
        )
        self._next_round = 0.0
        self._next_disk_listing = 0.0

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
        self._preloading.run()

    @property
    def is_busy(self) -> bool:
        """Whether a background operation still runs."""
        return self._background.any_running

    def _observe(self, earlier: RuntimeStatus) -> None:
        residency = self._coordinator.read().residency
        listed = self._runtime.loaded()
        was_down = not earlier.up
        is_due = was_down or time.monotonic() >= self._next_disk_listing
        if is_due:
            earlier = self._list_disk(earlier)
        in_gpu = any(model.vram_bytes for model in listed)
        self._runtime_status.write(
            replace(earlier, up=True, detail="", seen_at=time.monotonic(), in_gpu=in_gpu)
        )
        if was_down:
            log.info("runtime_up", extra={"runtime": earlier.version})
            self._places_observer.restart()
        self._places_observer.run(listed, residency)
        self._stalled_loads.run()
        knows_names = is_due and earlier.shares_runners
        self._correction.run(listed, residency, earlier.pulled if knows_names else None)
        self._keep_alive.run(listed, earlier.pulled)
        if self._any_missing:
            self._next_round = 0.0  # requests may wait for nothing but the next round

    def _list_disk(self, earlier: RuntimeStatus) -> RuntimeStatus:
        """Return the status with the runtime's version and the models on its disk."""
        began = time.monotonic()
        pulled = {
            model.name: self._capability_cache.complete(model, earlier.pulled.get(model.name))
            for model in self._runtime.pulled()
        }
        self._next_disk_listing = time.monotonic() + _LIST_DISK_INTERVAL_SECONDS
        self._request_capabilities(pulled)
        version = self._runtime.version()
        return replace(earlier, version=version, pulled=pulled, pulled_at=began)

    def _request_capabilities(self, pulled: Mapping[str, PulledModel]) -> None:
        catalog = self._coordinator.limits.models
        unknown = [
            model
            for model in pulled.values()
            if model.capabilities is None and model.name in catalog
        ]
        if unknown:
            self._background.run(_GET_CAPABILITIES, lambda: self._fetch_capabilities(unknown))

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
        if not self._any_missing:
            return
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            for model in list(filter(state.missing, state.registry)):
                state.look_for(model, listed=False, now=transaction.now)

    @property
    def _any_missing(self) -> bool:
        state = self._coordinator.read()
        return any(map(state.missing, state.registry))
