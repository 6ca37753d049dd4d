"""Gauges of models, runtime, processes and host, read when Prometheus scrapes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from mes import __version__
from mes.config.catalog import Catalog
from mes.domain import ModelSpec
from mes.scheduling.registry import ModelStatistics, Resident
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Metrics of the host, and the lines of /proc/meminfo with their values.
_HOST_MEMORY = {
    "mes_host_memory_total_bytes": "MemTotal",
    "mes_host_memory_available_bytes": "MemAvailable",
}


@dataclass(frozen=True)
class _ModelState:
    """The part of the shared state that concerns one model."""

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
        place = self.state.place_of(self.spec.tag)
        return self.state.statistics.get(place, ModelStatistics())

    @property
    def failures(self) -> int:
        trouble = self.state.load_failures.get(self.spec.tag)
        return trouble.failures if trouble else 0

    @property
    def resident(self) -> Resident | None:
        ready = self.runtime_up and self.state.ready(self.spec.tag)
        return self.state.resident(self.spec.tag) if ready else None


@dataclass(frozen=True)
class _ModelMetric:
    """A gauge or counter of each model; `value` returns None if the model has no value yet."""

    metric_type: type[GaugeMetricFamily] | type[CounterMetricFamily]
    name: str
    help: str
    value: Callable[[_ModelState], float | None]


_MODEL_METRICS = (
    _ModelMetric(
        GaugeMetricFamily,
        "mes_requests_in_flight",
        "Generations that are running",
        lambda model: model.in_flight,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_requests_in_flight_limit",
        "Maximum number of generations running at a time (max_concurrent)",
        lambda model: model.spec.max_concurrent,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_requests_queued",
        "Requests waiting in the queue",
        lambda model: model.queued,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_requests_queued_limit",
        "Maximum number of requests waiting at a time (max_queue)",
        lambda model: model.spec.max_queue,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_queue_oldest_wait_seconds",
        "Time that the first request in the queue has waited",
        lambda model: model.oldest_wait_seconds,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_model_loaded",
        "1 if the model is in memory and ready, else 0",
        lambda model: model.resident is not None,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_model_memory_bytes",
        "Memory of the loaded model, on the GPU or not, as reported by the runtime",
        lambda model: model.resident.size_bytes if model.resident else 0,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_model_gpu_memory_bytes",
        "GPU memory of the loaded model, as reported by the runtime",
        lambda model: model.resident.vram_bytes if model.resident else 0,
    ),
    _ModelMetric(
        CounterMetricFamily,
        "mes_model_loads",
        "Loads that succeeded",
        lambda model: model.statistics.loads,
    ),
    _ModelMetric(
        CounterMetricFamily,
        "mes_model_evictions",
        "Unloads, to make room or by request",
        lambda model: model.statistics.evictions,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_model_load_seconds",
        "Duration of a load: a moving average of the last loads",
        lambda model: model.statistics.load_seconds,
    ),
    _ModelMetric(
        GaugeMetricFamily,
        "mes_model_load_failures",
        "Loads that failed in a row; 0 after a successful load",
        lambda model: model.failures,
    ),
)


def model_gauges(catalog: Catalog, state: State, runtime_status: RuntimeStatus) -> Iterator[Metric]:
    """Yield the metrics of each model of the catalog."""
    models = [_ModelState(spec, state, runtime_status.running) for spec in catalog.models]
    for metric in _MODEL_METRICS:
        family = metric.metric_type(metric.name, metric.help, labels=["model"])
        for model in models:
            if (value := metric.value(model)) is not None:
                family.add_metric([model.spec.id], value)
        yield family


def runtime_gauges(runtime_status: RuntimeStatus) -> Iterator[Metric]:
    """Yield the metrics of the runtime, as the leader last observed it."""
    yield GaugeMetricFamily(
        "mes_runtime_up", "1 if the runtime answers, else 0", runtime_status.running
    )
    yield InfoMetricFamily(
        "mes_runtime",
        "Name and version of the runtime",
        {"version": runtime_status.version or "unknown"},
    )


def process_gauges(pids: Sequence[int]) -> Iterator[Metric]:
    """Yield the metrics of the worker processes with these ids."""
    sizes = [resident_bytes(pid) for pid in pids]
    yield GaugeMetricFamily("mes_worker_processes", "Running worker processes", len(pids))
    yield GaugeMetricFamily(
        "mes_worker_memory_bytes", "Resident memory of all worker processes", sum(sizes)
    )
    yield GaugeMetricFamily(
        "mes_worker_memory_max_bytes", "Resident memory of the largest worker process", max(sizes)
    )


def host_gauges() -> Iterator[Metric]:
    """Yield the versions of the service and the memory of the host."""
    versions = {"version": __version__, "python_version": platform.python_version()}
    yield InfoMetricFamily("mes_build", "Versions of MES and Python", versions)
    for name, line in _HOST_MEMORY.items():
        help = f"{line} of the host, from /proc/meminfo"
        yield GaugeMetricFamily(name, help, meminfo_bytes(line))


def meminfo_bytes(name: str) -> int | None:
    """Return a value of /proc/meminfo, such as MemTotal; None if there is no such value."""
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None
    return int(kilobytes) * 1024


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
