"""Families: what was counted of requests, as Prometheus wants to be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from mes import errors
from mes.config.catalog import Catalog
from mes.metrics.measures import MEASURES, PLACED, Kind, Measure

Rows = Mapping[Kind, Sequence[float]]

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


def of_requests(rows: Rows, catalog: Catalog) -> Iterator[Metric]:
    """All metrics about requests."""
    for name in dict.fromkeys(measure.name for measure in MEASURES):
        yield _histogram([placed for placed in PLACED if placed[1].name == name], rows)
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
    return round(sum(numbers[: MEASURES[0].width - 1]))


def _counter(
    name: str, help: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _histogram(placed: Sequence[tuple[int, Measure]], rows: Rows) -> HistogramMetricFamily:
    """One family, made of the measures that share its name."""
    first = placed[0][1]
    family = HistogramMetricFamily(first.name, first.help, labels=list(first.labels))
    for start, measure in placed:
        bounds = [*map(str, map(float, measure.bounds)), "+Inf"]
        for values, numbers in _by_labels(start, measure, rows).items():
            buckets = list(zip(bounds, accumulate(numbers[:-1]), strict=True))
            family.add_metric(values, buckets, numbers[-1])
    return family


def _by_labels(start: int, measure: Measure, rows: Rows) -> dict[tuple[str, ...], list[float]]:
    """The measure's numbers, added up over all rows with the same labels."""
    found: dict[tuple[str, ...], list[float]] = {}
    for kind, row in rows.items():
        numbers = row[start : start + measure.width]
        if any(numbers):
            values = tuple(text.format(**kind._asdict()) for text in measure.labels.values())
            before = found.get(values, [0.0] * measure.width)
            found[values] = [a + b for a, b in zip(before, numbers, strict=True)]
    return found
