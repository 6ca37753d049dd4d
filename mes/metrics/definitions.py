"""Definitions of the histograms of requests: names, labels, bounds, and where values come from.

Names, labels and bounds are those of OpenTelemetry's semantic conventions (HTTP; generative AI) if
these define one, spelled as Prometheus requires. All other names begin with `mes_`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

# The fields of a request's log line.
LogFields = Mapping[str, Any]


class RequestLabels(NamedTuple):
    """The labels that a request is counted under.

    Each field has few values, independent of the requests, so that the number of rows is limited.
    """

    method: str
    route: str
    operation: str
    status: str
    code: str
    model: str
    first_verdict: str
    verdict: str


@dataclass(frozen=True)
class MetricDefinition:
    """A histogram of one value of each request.

    Attributes:
        name: the metric's name.
        help: the metric's HELP text.
        labels: the values of the labels; `{model}` stands for that field of RequestLabels.
        bounds: the upper bounds of the buckets, ascending, without the unbounded one.
        value: returns the value from a request's log fields, or None if the request has none.
    """

    name: str
    help: str
    labels: Mapping[str, str]
    bounds: tuple[float, ...]
    value: Callable[[LogFields], float | None]

    @cached_property
    def width(self) -> int:
        """How many numbers a row has for it: a count for each bucket, and the sum."""
        return len(self.bounds) + 2


def increments(fields: LogFields) -> list[tuple[int, float]]:
    """Return the index and the amount of each number that a request adds to its row."""
    amounts = []
    for offset, metric in METRIC_OFFSETS:
        value = metric.value(fields)
        if value is not None and value >= 0:
            amounts.append((offset + bisect_left(metric.bounds, value), 1.0))
            amounts.append((offset + metric.width - 1, value))
    return amounts


def _request_seconds(fields: LogFields) -> float | None:
    # None for the generations of a request that is counted on its own.
    return None if fields["ms"] is None else float(fields["ms"]) / 1000


def _inference_seconds(fields: LogFields) -> float | None:
    return _request_seconds(fields) if fields.get("model") else None


def _first_token_seconds(fields: LogFields) -> float | None:
    timings = fields.get("timings")
    if not timings or "time_to_first_token_ms" not in timings:
        return None  # embeddings have no tokens
    wait_ms = timings["queue_ms"] + timings["load_ms"]
    return float(wait_ms + timings["time_to_first_token_ms"]) / 1000


def _seconds_per_token(fields: LogFields) -> float | None:
    tokens = _token_count("completion_tokens")(fields)
    return fields["timings"]["generation_ms"] / tokens / 1000 if tokens else None


def _timing_seconds(name: str) -> Callable[[LogFields], float | None]:
    return lambda fields: fields["timings"][name] / 1000 if fields.get("timings") else None


def _token_count(name: str) -> Callable[[LogFields], float | None]:
    return lambda fields: fields["usage"].get(name) if fields.get("usage") else None


def _attempts(fields: LogFields) -> float | None:
    return fields.get("attempts")


_GEN_AI = {
    "gen_ai_operation_name": "{operation}",
    "gen_ai_provider_name": "ollama",
    "gen_ai_request_model": "{model}",
}
_MODEL = {"model": "{model}"}

_HTTP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Queue, load and generation together may take longer than the conventions' last bound.
_DURATION_BOUNDS = (*(0.01 * 2**n for n in range(14)), 163.84, 327.68, 655.36)
_FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08),
    *(0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300),
)
_PER_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
# The conventions continue to 67108864, which is more than any model's context window.
_TOKEN_BOUNDS = tuple(4**n for n in range(11))
_WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_TOKEN_USAGE_HELP = "Tokens of the prompt and of the output, as counted by the runtime"

DEFINITIONS = (
    MetricDefinition(
        "http_server_request_duration_seconds",
        "Time from the arrival of a request to its response",
        {
            "http_request_method": "{method}",
            "http_route": "{route}",
            "http_response_status_code": "{status}",
        },
        _HTTP_BOUNDS,
        _request_seconds,
    ),
    MetricDefinition(
        "gen_ai_server_request_duration_seconds",
        "Time from the arrival of an inference request to its response",
        {**_GEN_AI, "error_type": "{code}"},
        _DURATION_BOUNDS,
        _inference_seconds,
    ),
    MetricDefinition(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from the arrival of an inference request to its first token, with queue and load",
        _GEN_AI,
        _FIRST_TOKEN_BOUNDS,
        _first_token_seconds,
    ),
    MetricDefinition(
        "gen_ai_server_time_per_output_token_seconds",
        "Generation time of a successful inference divided by its output tokens",
        _GEN_AI,
        _PER_TOKEN_BOUNDS,
        _seconds_per_token,
    ),
    MetricDefinition(
        "gen_ai_client_token_usage",
        _TOKEN_USAGE_HELP,
        {**_GEN_AI, "gen_ai_token_type": "input"},
        _TOKEN_BOUNDS,
        _token_count("prompt_tokens"),
    ),
    MetricDefinition(
        "gen_ai_client_token_usage",
        _TOKEN_USAGE_HELP,
        {**_GEN_AI, "gen_ai_token_type": "output"},
        _TOKEN_BOUNDS,
        _token_count("completion_tokens"),
    ),
    MetricDefinition(
        "mes_queue_wait_seconds",
        "Time that a successful inference waited in the queue, without loads",
        _MODEL,
        _WAIT_BOUNDS,
        _timing_seconds("queue_ms"),
    ),
    MetricDefinition(
        "mes_load_wait_seconds",
        "Time that a successful inference waited for its model to load",
        _MODEL,
        _WAIT_BOUNDS,
        _timing_seconds("load_ms"),
    ),
    MetricDefinition(
        "mes_structured_attempts",
        "Attempts of the model at an output that matches the JSON Schema",
        _MODEL,
        (1, 2, 3, 4),
        _attempts,
    ),
)


def _metric_offsets() -> Iterator[tuple[int, MetricDefinition]]:
    offset = 0
    for metric in DEFINITIONS:
        yield offset, metric
        offset += metric.width


# The index in a row at which the numbers of each metric begin.
METRIC_OFFSETS = tuple(_metric_offsets())
ROW_WIDTH = sum(metric.width for metric in DEFINITIONS)
