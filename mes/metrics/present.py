"""The present: how the models, the runtime and the machine stand at the moment of the scrape."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from mes import __version__, host
from mes.catalog import Catalog
from mes.domain import ModelSpec
from mes.scheduling.registry import ModelStatistics, Resident
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State


@dataclass(frozen=True)
class _Standing:
    """One model in the state that all workers share."""

    spec: ModelSpec
    state: State
    runtime_up: bool

    @property
    def in_flight(self) -> int:
        return self.state.in_flight(self.spec.tag)

    @property
    def queued(self) -> int:
        return len(self.state.waiting(self.spec.tag))

    @property
    def oldest_wait_seconds(self) -> float:
        waiting = self.state.waiting(self.spec.tag)
        return time.monotonic() - waiting[0].arrived_at if waiting else 0.0

    @property
    def statistics(self) -> ModelStatistics:
        return self.state.statistics.get(self.spec.tag, ModelStatistics())

    @property
    def failures(self) -> int:
        trouble = self.state.load_failures.get(self.spec.tag)
        return trouble.failures if trouble else 0

    @property
    def resident(self) -> Resident | None:
        ready = self.runtime_up and self.state.ready(self.spec.tag)
        return self.state.registry.peek(self.spec.tag) if ready else None


@dataclass(frozen=True)
class _Told:
    """A metric with one number for each model; None where it has none yet."""

    family: type[GaugeMetricFamily] | type[CounterMetricFamily]
    name: str
    help: str
    of: Callable[[_Standing], float | None]


_OF_MODELS = (
    _Told(
        GaugeMetricFamily,
        "mes_requests_in_flight",
        "Generations under way",
        lambda model: model.in_flight,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_requests_in_flight_limit",
        "Generations that may be under way at a time (max_concurrent)",
        lambda model: model.spec.max_concurrent,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_requests_queued",
        "Requests that wait their turn",
        lambda model: model.queued,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_requests_queued_limit",
        "Requests that may wait at a time (max_queue)",
        lambda model: model.spec.max_queue,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_queue_oldest_wait_seconds",
        "How long the first in the queue has waited",
        lambda model: model.oldest_wait_seconds,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_model_loaded",
        "1 while the model is in memory and ready",
        lambda model: model.resident is not None,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_model_memory_bytes",
        "Memory that the loaded model takes up, on the GPU or not, as the runtime says",
        lambda model: model.resident.size_bytes if model.resident else 0,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_model_gpu_memory_bytes",
        "The part of it that is on the GPU",
        lambda model: model.resident.vram_bytes if model.resident else 0,
    ),
    _Told(
        CounterMetricFamily,
        "mes_model_loads",
        "Loads that succeeded",
        lambda model: model.statistics.loads,
    ),
    _Told(
        CounterMetricFamily,
        "mes_model_evictions",
        "Unloads, to make room or because somebody asked",
        lambda model: model.statistics.evictions,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_model_load_seconds",
        "How long a load takes: a moving average over the last few",
        lambda model: model.statistics.load_seconds,
    ),
    _Told(
        GaugeMetricFamily,
        "mes_model_load_failures",
        "Loads given up in a row; 0 once one has succeeded",
        lambda model: model.failures,
    ),
)


def of_models(catalog: Catalog, state: State, runtime_status: RuntimeStatus) -> Iterator[Metric]:
    """How it stands with each model of the catalog."""
    standings = [_Standing(spec, state, runtime_status.running) for spec in catalog.models]
    for told in _OF_MODELS:
        family = told.family(told.name, told.help, labels=["model"])
        for model in standings:
            if (value := told.of(model)) is not None:
                family.add_metric([model.spec.id], value)
        yield family


def of_runtime(runtime_status: RuntimeStatus) -> Iterator[Metric]:
    """How it stands with the runtime, as the keeper last saw it."""
    yield GaugeMetricFamily("mes_runtime_up", "1 while the runtime answers", runtime_status.running)
    yield InfoMetricFamily(
        "mes_runtime", "What runs the models", {"version": runtime_status.version or "unknown"}
    )


def of_processes(pids: Sequence[int]) -> Iterator[Metric]:
    """What the service itself is, and what it takes of the machine."""
    sizes = [host.resident_bytes(pid) for pid in pids]
    yield InfoMetricFamily(
        "mes_build",
        "What serves",
        {"version": __version__, "python_version": platform.python_version()},
    )
    yield GaugeMetricFamily("mes_worker_processes", "Worker processes that run", len(pids))
    yield GaugeMetricFamily(
        "mes_worker_memory_bytes", "Resident memory of all worker processes", sum(sizes)
    )
    yield GaugeMetricFamily(
        "mes_worker_memory_max_bytes", "Resident memory of the largest of them", max(sizes)
    )
    for name, line in _HOST_MEMORY.items():
        yield GaugeMetricFamily(name, f"{line} of the machine", host.memory_bytes(line))


_HOST_MEMORY = {
    "mes_host_memory_total_bytes": "MemTotal",
    "mes_host_memory_available_bytes": "MemAvailable",
}
