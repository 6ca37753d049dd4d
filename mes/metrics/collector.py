"""The Prometheus collector: all metrics as the page that Prometheus scrapes."""

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

# The exposition: all metrics as the page that Prometheus scrapes.


@dataclass(frozen=True)
class MetricsCollector(Collector):
    """What has been counted and how things stand, told by whichever worker is asked."""

    request_counters: RequestCounters
    board: Board
    sight: SharedSight
    worker: Worker
    catalog: Callable[[], Catalog]

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type: OpenMetrics for who accepts it, else Prometheus's own."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        catalog, sight = self.catalog(), self.sight.current()
        yield from request_metrics(self.request_counters.rows(), catalog)
        yield from gauges.model_gauges(catalog, self.board.read(), sight)
        yield GaugeMetricFamily(
            "mes_models_loaded_limit",
            "Models that may be in memory at a time (MAX_LOADED_MODELS)",
            self.board.limits.max_loaded,
        )
        yield from gauges.runtime_gauges(sight)
        yield from gauges.process_gauges(self.worker.pids())


# Families: what was counted of requests, as Prometheus wants to be told.

Rows = Mapping[RequestLabels, Sequence[float]]

# Told of every model from the start: Prometheus sees no increase in a series that begins with its
# first error, so an alert would miss the first burst.
_FAULTS = (
    errors.QueueFull,
    errors.QueueTimeout,
    errors.RuntimeUnavailable,
    errors.ModelUnavailable,
    errors.RuntimeReplyInvalid,
    errors.GenerationAborted,
    errors.GenerationTimeout,
    errors.LoadTimeout,
)


def request_metrics(rows: Rows, catalog: Catalog) -> Iterator[Metric]:
    """All metrics about requests."""
    for name in dict.fromkeys(measure.name for measure in DEFINITIONS):
        yield _histogram([placed for placed in METRIC_OFFSETS if placed[1].name == name], rows)
    yield _errors(rows, catalog)
    yield _answers(rows)


def _errors(rows: Rows, catalog: Catalog) -> Metric:
    pairs = product(_FAULTS, catalog.enabled)
    counts: Counter[tuple[str, ...]] = Counter({(kind.code, spec.id): 0 for kind, spec in pairs})
    for kind, numbers in rows.items():
        if kind.code:
            counts[kind.code, kind.model] += _requests(numbers)
    help = "Requests that were answered with an error"
    return _counter("mes_errors", help, ("code", "model"), counts)


def _answers(rows: Rows) -> Metric:
    counts: Counter[tuple[str, ...]] = Counter()
    for kind, numbers in rows.items():
        if kind.verdict:
            counts[kind.model, kind.first_verdict, kind.verdict] += _requests(numbers)
    help = "Answers that had to fit a schema"
    return _counter("mes_structured_answers", help, ("model", "first_verdict", "verdict"), counts)


def _requests(numbers: Sequence[float]) -> int:
    """Each request has a duration, which is the first measure."""
    return round(sum(numbers[: DEFINITIONS[0].width - 1]))


def _counter(
    name: str, help: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _histogram(placed: Sequence[tuple[int, MetricDefinition]], rows: Rows) -> HistogramMetricFamily:
    """One family, made of the measures that share its name."""
    first = placed[0][1]
    family = HistogramMetricFamily(first.name, first.help, labels=list(first.labels))
    for start, measure in placed:
        bounds = [*map(str, map(float, measure.bounds)), "+Inf"]
        for values, numbers in _by_labels(start, measure, rows).items():
            buckets = list(zip(bounds, accumulate(numbers[:-1]), strict=True))
            family.add_metric(values, buckets, numbers[-1])
    return family


def _by_labels(
    start: int, measure: MetricDefinition, rows: Rows
) -> dict[tuple[str, ...], list[float]]:
    """The measure's numbers, added up over all rows with the same labels."""
    found: dict[tuple[str, ...], list[float]] = {}
    for kind, row in rows.items():
        numbers = row[start : start + measure.width]
        if any(numbers):
            values = tuple(text.format(**kind._asdict()) for text in measure.labels.values())
            before = found.get(values, [0.0] * measure.width)
            found[values] = [a + b for a, b in zip(before, numbers, strict=True)]
    return found
