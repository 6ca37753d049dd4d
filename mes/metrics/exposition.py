"""The exposition: all metrics as the page that Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mes.catalog import Catalog
from mes.metrics import present
from mes.metrics.families import of_requests
from mes.metrics.observed import Observed
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.worker import Worker


@dataclass(frozen=True)
class Metrics(Collector):
    """What has been counted and how things stand, told by whichever worker is asked."""

    observed: Observed
    coordinator: Coordinator
    runtime_status: RuntimeStatusFile
    worker: Worker
    catalog: Callable[[], Catalog]

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type: OpenMetrics for who accepts it, else Prometheus's own."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        catalog, runtime_status = self.catalog(), self.runtime_status.current()
        yield from of_requests(self.observed.rows(), catalog)
        yield from present.of_models(catalog, self.coordinator.read(), runtime_status)
        yield GaugeMetricFamily(
            "mes_models_loaded_limit",
            "Models that may be in memory at a time (MAX_LOADED_MODELS)",
            self.coordinator.limits.max_loaded,
        )
        yield from present.of_runtime(runtime_status)
        yield from present.of_processes(self.worker.pids())
