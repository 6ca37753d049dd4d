"""Permits: no more than `max_concurrent` at a time, in order of arrival, over four workers."""

from __future__ import annotations

import pytest

from tests.integration.helpers import answers, burst, infer, registry, wait_until_at_rest
from tests.support.process import wait_until

MODEL = "mistral:7b"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 3, "max_queue": 60}})


def joined(service):
    """Return the worker of each permit and each ticket."""
    document = registry(service)
    return [x["worker"] for name in ("permits", "tickets") for x in document[name].values()]


def test_three_at_a_time_of_sixty_at_once_and_all_are_answered(service, runtime):
    runtime.control(tokens=5, ms_per_token=10)
    answered = answers(burst(service, MODEL, 60))
    assert [answer.status for answer in answered] == [200] * 60
    assert runtime.model(MODEL)["peak"] == 3
    assert runtime.model(MODEL)["generations"] == 60
    wait_until_at_rest(service)


def test_the_limit_is_for_all_workers_together(service, runtime):
    # So long that all are there before the first ends, also when the machine is busy.
    runtime.control(first_token_ms=5000)
    calls = burst(service, MODEL, 40)
    workers = wait_until(lambda: (found := joined(service))[39:] and set(found))
    assert len(workers) > 1
    runtime.control(first_token_ms=10)
    assert {answer.status for answer in answers(calls)} == {200}
    assert runtime.model(MODEL)["peak"] == 3


def test_sixty_are_served_in_order_of_arrival(service, runtime):
    runtime.control(first_token_ms=3000)
    first = burst(service, MODEL, 3)
    wait_until(lambda: len(joined(service)) == 3)
    calls = []
    for n in range(60):
        arrived = registry(service)["number"]
        calls.append(infer(service, MODEL, f"q{n}"))
        wait_until(lambda so_far=arrived: registry(service)["number"] > so_far)
    runtime.control(first_token_ms=20)
    assert {answer.status for answer in answers(first + calls)} == {200}
    arrivals = [each["prompt"] for each in runtime.stats()["arrivals"]]
    order = [int(prompt[1:]) for prompt in arrivals if prompt.startswith("q")]
    # Three hold permits at a time, and reach the runtime in any order.
    assert max(abs(place - n) for place, n in enumerate(order)) <= 3
