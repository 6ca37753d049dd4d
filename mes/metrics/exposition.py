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
from mes.scheduling.board import Board
from mes.scheduling.runtime_status import SharedRuntimeStatus
from mes.scheduling.worker import Worker


@dataclass(frozen=True)
class Metrics(Collector):
    """What has been counted and how things stand, told by whichever worker is asked."""

    observed: Observed
    board: Board
    sight: SharedRuntimeStatus
    worker: Worker
    catalog: Callable[[], Catalog]

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type: OpenMetrics for who accepts it, else Prometheus's own."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        catalog, sight = self.catalog(), self.sight.current()
        yield from of_requests(self.observed.rows(), catalog)
        yield from present.of_models(catalog, self.board.read(), sight)
        yield GaugeMetricFamily(
            "mes_models_loaded_limit",
            "Models that may be in memory at a time (MAX_LOADED_MODELS)",
            self.board.limits.max_loaded,
        )
        yield from present.of_runtime(sight)
        yield from present.of_processes(self.worker.pids())
