"""Measures: what is noted of each request, and under which names Prometheus hears of it.

Names, labels and bounds are those of OpenTelemetry's semantic conventions (HTTP; generative AI)
where these have one, written as Prometheus writes them; all others begin with `mes_`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Facts = Mapping[str, Any]


class RequestLabels(NamedTuple):
    """What sort of request it was. Each field has few values, whatever callers send."""

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
    """A number of each request, told as a histogram; None where a request has none.

    The values of `labels` are filled in from the Kind of the request.
    """

    name: str
    help: str
    labels: Mapping[str, str]
    bounds: tuple[float, ...]
    of: Callable[[Facts], float | None]

    @property
    def width(self) -> int:
        """A count for each bucket, the unbounded one included, and the sum."""
        return len(self.bounds) + 2


def increments(facts: Facts) -> Iterator[tuple[int, float]]:
    """What a request adds to the row of its kind."""
    for start, measure in METRIC_OFFSETS:
        value = measure.of(facts)
        if value is not None and value >= 0:
            yield start + bisect_left(measure.bounds, value), 1.0
            yield start + measure.width - 1, value


def _seconds(facts: Facts) -> float:
    return float(facts["ms"]) / 1000


def _inference_seconds(facts: Facts) -> float | None:
    return _seconds(facts) if facts.get("model") else None


def _first_token_seconds(facts: Facts) -> float | None:
    timings = facts.get("timings")
    if not timings or "time_to_first_token_ms" not in timings:
        return None  # vectors come all at once
    return _sum_of(timings, "queue_ms", "load_ms", "time_to_first_token_ms") / 1000


def _sum_of(timings: Facts, *names: str) -> float:
    return float(sum(timings[name] for name in names))


def _seconds_per_token(facts: Facts) -> float | None:
    tokens = _tokens("completion_tokens")(facts)
    return facts["timings"]["generation_ms"] / tokens / 1000 if tokens else None


def _timing(name: str) -> Callable[[Facts], float | None]:
    return lambda facts: facts["timings"][name] / 1000 if facts.get("timings") else None


def _tokens(name: str) -> Callable[[Facts], float | None]:
    return lambda facts: facts["usage"].get(name) if facts.get("usage") else None


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
# The conventions go on to 67108864, which no model's context holds.
_TOKEN_BOUNDS = tuple(4**n for n in range(11))
_WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

DEFINITIONS = (
    MetricDefinition(
        "http_server_request_duration_seconds",
        "Time from a request's arrival to its answer",
        {
            "http_request_method": "{method}",
            "http_route": "{route}",
            "http_response_status_code": "{status}",
        },
        _HTTP_BOUNDS,
        _seconds,
    ),
    MetricDefinition(
        "gen_ai_server_request_duration_seconds",
        "Time from an inference's arrival to its answer",
        {**_GEN_AI, "error_type": "{code}"},
        _DURATION_BOUNDS,
        _inference_seconds,
    ),
    MetricDefinition(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from an inference's arrival to its first token, queue and load included",
        _GEN_AI,
        _FIRST_TOKEN_BOUNDS,
        _first_token_seconds,
    ),
    MetricDefinition(
        "gen_ai_server_time_per_output_token_seconds",
        "Time that each token of an answer took to generate",
        _GEN_AI,
        _PER_TOKEN_BOUNDS,
        _seconds_per_token,
    ),
    MetricDefinition(
        "gen_ai_client_token_usage",
        "Tokens of prompts and of answers, as the runtime counted them",
        {**_GEN_AI, "gen_ai_token_type": "input"},
        _TOKEN_BOUNDS,
        _tokens("prompt_tokens"),
    ),
    MetricDefinition(
        "gen_ai_client_token_usage",
        "Tokens of prompts and of answers, as the runtime counted them",
        {**_GEN_AI, "gen_ai_token_type": "output"},
        _TOKEN_BOUNDS,
        _tokens("completion_tokens"),
    ),
    MetricDefinition(
        "mes_queue_wait_seconds",
        "Time that an answered inference waited its turn, loads not included",
        _MODEL,
        _WAIT_BOUNDS,
        _timing("queue_ms"),
    ),
    MetricDefinition(
        "mes_load_wait_seconds",
        "Time that an answered inference waited for its model to be loaded",
        _MODEL,
        _WAIT_BOUNDS,
        _timing("load_ms"),
    ),
    MetricDefinition(
        "mes_structured_attempts",
        "How often the model was asked for an answer that fits its schema",
        _MODEL,
        (1, 2, 3, 4),
        lambda facts: facts.get("attempts"),
    ),
)


def _placed() -> Iterator[tuple[int, MetricDefinition]]:
    start = 0
    for measure in DEFINITIONS:
        yield start, measure
        start += measure.width


# Where in a row each measure begins.
METRIC_OFFSETS = tuple(_placed())
ROW_WIDTH = sum(measure.width for measure in DEFINITIONS)
