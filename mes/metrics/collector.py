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
from mes.scheduling.board import Board
from mes.scheduling.sight import SharedSight
from mes.scheduling.worker import Worker

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
    board: Board
    sight: SharedSight
    worker: Worker
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
        catalog, sight = self.catalog(), self.sight.current()
        yield from request_metrics(self.request_counters.rows(), catalog)
        yield from gauges.model_gauges(catalog, self.board.read(), sight)
        yield GaugeMetricFamily(
            "mes_models_loaded_limit",
            "Maximum number of models in memory (MAX_LOADED_MODELS)",
            self.board.limits.max_loaded,
        )
        yield from gauges.runtime_gauges(sight)
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
            counts[labels.code, labels.model] += _request_count(numbers)
    return _counter("mes_errors", "Requests that failed, by error code", ("code", "model"), counts)


def _structured_answers(rows: Rows) -> Metric:
    counts: Counter[tuple[str, ...]] = Counter()
    for labels, numbers in rows.items():
        if labels.verdict:
            key = labels.model, labels.first_verdict, labels.verdict
            counts[key] += _request_count(numbers)
    help = "Outputs validated with a JSON Schema, by the verdicts on the first and last attempt"
    return _counter("mes_structured_answers", help, ("model", "first_verdict", "verdict"), counts)


def _request_count(numbers: Sequence[float]) -> int:
    """Return the number of requests in a row, from the buckets of the first metric.

    The first metric is the duration, which every request has.
    """
    return round(sum(numbers[: DEFINITIONS[0].width - 1]))


def _counter(
    name: str, help: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
