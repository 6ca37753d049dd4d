"""The Prometheus collector: all metrics of the service, as `GET /metrics` returns them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mes import errors
from mes.config.catalog import Catalog
from mes.metrics import gauges
from mes.metrics.counters import RequestCounters
from mes.metrics.definitions import DEFINITIONS, METRIC_OFFSETS, MetricDefinition, RequestLabels
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.workers import WorkerProcess

Rows = Mapping[RequestLabels, Sequence[float]]

# These errors are exported as 0 for every model from the start: Prometheus sees no increase in a
# series that begins with its first error, so an alert would miss the first burst.
_ERRORS_FROM_START = (
    errors.QueueFull,
    errors.QueueTimeout,
    errors.RuntimeUnavailable,
    errors.ModelUnavailable,
    errors.RuntimeReplyInvalid,
    errors.GenerationAborted,
    errors.GenerationTimeout,
    errors.LoadTimeout,
)


@dataclass(frozen=True)
class MetricsCollector(Collector):
    """Collects the metrics of all workers, in the worker that is scraped."""

    request_counters: RequestCounters
    coordinator: Coordinator
    runtime_status: RuntimeStatusFile
    worker: WorkerProcess
    catalog: Callable[[], Catalog]

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and its media type.

        Args:
            accept: the Accept header; the format is OpenMetrics if it is accepted, else
                Prometheus's own.
        """
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        catalog, runtime_status = self.catalog(), self.runtime_status.current()
        yield from request_metrics(self.request_counters.rows(), catalog)
        yield from gauges.model_gauges(catalog, self.coordinator.read(), runtime_status)
        yield GaugeMetricFamily(
            "mes_models_loaded_limit",
            "Maximum number of models in memory (MAX_LOADED_MODELS)",
            self.coordinator.limits.max_loaded,
        )
        yield from gauges.runtime_gauges(runtime_status)
        yield from gauges.process_gauges(self.worker.pids())
        yield from gauges.host_gauges()


def request_metrics(rows: Rows, catalog: Catalog) -> Iterator[Metric]:
    """Yield the metrics of the counted requests."""
    for name in dict.fromkeys(metric.name for metric in DEFINITIONS):
        yield _histogram([entry for entry in METRIC_OFFSETS if entry[1].name == name], rows)
    yield _errors(rows, catalog)
    yield _structured_answers(rows)


def _histogram(metrics: Sequence[tuple[int, MetricDefinition]], rows: Rows) -> Metric:
    """Return one family from the definitions that share its name, given with their offsets."""
    first = metrics[0][1]
    family = HistogramMetricFamily(first.name, first.help, labels=list(first.labels))
    for offset, metric in metrics:
        bounds = [*map(str, map(float, metric.bounds)), "+Inf"]
        for values, numbers in _sums_by_labels(offset, metric, rows).items():
            buckets = list(zip(bounds, accumulate(numbers[:-1]), strict=True))
            family.add_metric(values, buckets, numbers[-1])
    return family


def _sums_by_labels(
    offset: int, metric: MetricDefinition, rows: Rows
) -> dict[tuple[str, ...], list[float]]:
    """Add up the metric's numbers of all rows with the same values of the metric's labels."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for labels, row in rows.items():
        numbers = row[offset : offset + metric.width]
        if any(numbers):
            values = tuple(text.format(**labels._asdict()) for text in metric.labels.values())
            previous = sums.get(values, [0.0] * metric.width)
            sums[values] = [a + b for a, b in zip(previous, numbers, strict=True)]
    return sums


def _errors(rows: Rows, catalog: Catalog) -> Metric:
    pairs = product(_ERRORS_FROM_START, catalog.enabled)
    counts: Counter[tuple[str, ...]] = Counter({(kind.code, spec.id): 0 for kind, spec in pairs})
    for labels, numbers in rows.items():
        if labels.code:
            counts[labels.code, labels.model] += _count_of(DEFINITIONS[0].name, numbers)
    return _counter("mes_errors", "Requests that failed, by error code", ("code", "model"), counts)


def _structured_answers(rows: Rows) -> Metric:
    counts: Counter[tuple[str, ...]] = Counter()
    for labels, numbers in rows.items():
        if labels.verdict:
            key = labels.model, labels.first_verdict, labels.verdict
            counts[key] += _count_of("mes_structured_attempts", numbers)
    help = "Outputs validated with a JSON Schema, by the verdicts on the first and last attempt"
    return _counter("mes_structured_answers", help, ("model", "first_verdict", "verdict"), counts)


def _count_of(name: str, numbers: Sequence[float]) -> int:
    """Return how often a row counts the metric, from its buckets.

    Every request has the first metric, its duration; every answer that was validated has the number
    of its attempts.
    """
    offset, metric = next(entry for entry in METRIC_OFFSETS if entry[1].name == name)
    return round(sum(numbers[offset : offset + metric.width - 1]))


def _counter(
    name: str, help: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
