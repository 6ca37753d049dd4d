"""The verdicts of the soak test find the faults that they check for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest

from bench.soak_test.fault_injection import WorkerKill
from bench.soak_test.growth import Growth, ProcessUsage, ServiceUsage
from bench.soak_test.load import HUNG_UP, RequestOutcome
from bench.soak_test.metrics_check import MetricsCheck, Scrape
from bench.soak_test.model_faults import ModelFaults
from bench.soak_test.request_mix import draw
from bench.soak_test.runtime_counters import RuntimeCounters
from bench.soak_test.verdicts import not_pulled_without_cause
from tests.integration.helpers import LOST, Answer

ANSWERED = RequestOutcome("plain", "/v1/inference", "a:1b", 200, "", 5000, 10.0, 11.0, "")
EMPTY = Scrape(Counter(), Counter(), loads=0, evictions=0, current=0)
SIZE = ProcessUsage(descriptors=100, threads=100, memory_kb=100_000)
SIZES = ServiceUsage(SIZE, SIZE, state_files=5, state_bytes=1000)


def lost(**more):
    return replace(ANSWERED, status=LOST, **more)


def counted(answers, errors=0):
    """Return a scrape with these counts of the model, and with the scrape before it."""
    statuses = {("/v1/inference", "200"): answers, ("/v1/inference", "503"): errors}
    models = {("a:1b", ""): answers, ("a:1b", "queue_full"): errors}
    by_status = Counter({**statuses, ("/metrics", "200"): 1})
    return replace(EMPTY, by_status=by_status, by_model=Counter(models))


def breaches(page, *outcomes, lost_with_worker=0):
    return list(MetricsCheck(EMPTY, page, list(outcomes), lost_with_worker).breaches())


@pytest.mark.parametrize(
    ("outcome", "lost_with_it"),
    [
        (lost(), True),
        (replace(ANSWERED, status=HUNG_UP, ended_at=10.1), True),
        (lost(port=5001), False),
        (lost(sent_at=10.9), False),
        (lost(ended_at=10.2), True),
        (lost(sent_at=1.0, ended_at=2.0), False),
    ],
)
def test_a_killed_worker_loses_its_open_requests_and_no_others(outcome, lost_with_it):
    assert WorkerKill(10.5, frozenset({5000})).may_have_lost(outcome) is lost_with_it


def test_counts_that_agree_are_no_breach():
    assert breaches(counted(2), ANSWERED, ANSWERED) == []
    assert breaches(counted(1), ANSWERED, lost(), lost_with_worker=1) == []
    assert breaches(counted(2), ANSWERED, lost(), lost_with_worker=1) == []


def test_a_request_that_metrics_have_missed_is_a_breach():
    assert breaches(counted(1), ANSWERED, ANSWERED, lost_with_worker=0)
    assert breaches(counted(1), ANSWERED, ANSWERED, lost_with_worker=5)
    assert breaches(counted(0), lost(), lost_with_worker=0)


def test_a_request_that_metrics_count_twice_is_a_breach():
    assert breaches(counted(3), ANSWERED, ANSWERED)
    assert (
        breaches(counted(3), ANSWERED, ANSWERED, lost(), lost(), lost(), lost_with_worker=3) == []
    )


def test_more_than_the_limits_is_a_breach_in_any_run_of_the_runtime():
    runtime_counters = RuntimeCounters()
    a, b = {"a:1b": "loaded"}, {"a:1b": "loaded", "b:1b": "loading"}
    for peak, most in ((1, b), (3, a), (1, a)):
        counters = {"peak": peak}
        zeros = dict.fromkeys(("generations", "loads", "unloads", "implicit_loads"), 0)
        never = dict.fromkeys(("cancelled_generations", "reloads", "unloaded_while_busy"), 0)
        runtime_counters.add(
            {**zeros, **never, "most_in_memory": most, "models": {"a:1b": counters}}
        )
    assert runtime_counters.breaches(places=2, concurrent=3) == []
    assert runtime_counters.breaches(places=1, concurrent=3) == [f"in memory at a time: {b}"]
    assert runtime_counters.breaches(places=2, concurrent=2) == ["3 generations of a:1b at a time"]


@pytest.mark.parametrize(
    ("outcome", "has_cause"),
    [
        (ANSWERED, True),
        (replace(ANSWERED, ended_at=10.1), False),
        (replace(ANSWERED, sent_at=34.0, ended_at=34.1), True),
        (replace(ANSWERED, sent_at=36.0, ended_at=36.1), False),
        (replace(ANSWERED, model="b:1b"), False),
    ],
)
def test_a_model_that_was_not_deleted_may_not_be_refused_as_not_pulled(outcome, has_cause):
    models = ModelFaults(None, Random(0), deletions=[("a:1b", 10.5, 20.0)])
    refused = replace(outcome, status=404, code="model_not_pulled")
    found = not_pulled_without_cause([ANSWERED, refused], SimpleNamespace(models=models))
    assert (found == []) is has_cause


@pytest.mark.parametrize(
    ("status", "body", "is_error"),
    [
        (200, b'{"structured": {"verdict": "valid"}}', False),
        (200, b'{"structured": {"verdict": "schema_violation"}}', False),
        (200, b'{"structured": {"verdict": "truncated"}}', True),
        (422, b'{"code": "schema_unsafe"}', False),
        (422, b'{"code": "request_invalid"}', True),
        (500, b'{"code": "internal_error"}', True),
        (504, b'{"code": "generation_timeout"}', False),
    ],
)
def test_a_schema_with_huge_counts_gets_a_verdict_or_is_refused(status, body, is_error):
    rng = Random(0)
    bomb = next(each for each in iter(lambda: draw(rng), None) if each.kind == "bomb")
    headers = {} if status == 200 else {"content-type": "application/problem+json"}
    assert bool(bomb.find_error(Answer(status, headers, body, 0.1))) is is_error


def growth(after=SIZES, older=SIZES):
    return Growth(SIZES, after, older).breaches()


@pytest.mark.parametrize("grown", [{"descriptors": 124}, {"threads": 106}, {"memory_kb": 105_001}])
def test_workers_that_grow_are_a_breach(grown):
    larger = replace(SIZES, workers=replace(SIZE, **grown))
    assert growth(after=larger, older=larger)
    less = {name: value - 1 for name, value in grown.items()}
    smaller = replace(SIZES, workers=replace(SIZE, **less))
    assert growth(after=smaller, older=smaller) == []


@pytest.mark.parametrize("grown", [{"descriptors": 124}, {"threads": 106}, {"memory_kb": 120_001}])
def test_workers_that_grow_with_age_are_a_breach(grown):
    assert growth(older=replace(SIZES, workers=replace(SIZE, **grown)))
    assert growth(older=replace(SIZES, master=replace(SIZE, **grown)))


def test_a_state_directory_that_grows_is_a_breach():
    assert growth(after=replace(SIZES, state_files=6))
    assert growth(older=replace(SIZES, state_bytes=10_000_000))


def test_a_service_that_does_not_become_idle_is_a_breach():
    assert growth(after=None, older=None)
