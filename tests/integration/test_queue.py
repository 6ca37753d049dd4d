"""The queue: a full one refuses at once, and a client that hangs up leaves it."""

from __future__ import annotations

import pytest

from tests.integration.helpers import (
    Call,
    answers,
    burst,
    held,
    infer,
    percentile,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until

MODEL = "phi3:mini"
FOR_EVER_MS = 600_000
# A refused request takes no longer than one that needs no model; with a queue it would wait for
# QUEUE_TIMEOUT (300 s). On an idle machine, both take a few milliseconds.
REFUSED_SECONDS = 0.1
SLOWDOWN = 5

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 1, "max_queue": 2, "timeout": 600}})


@pytest.fixture
def full(service, runtime):
    """Fill the queue. Return one request that generates for ever and two that wait, in order."""
    runtime.control(first_token_ms=FOR_EVER_MS)
    calls = []
    for n in range(3):
        calls.append(infer(service, MODEL, f"held {n}"))
        wait_until_held(service, permits=1, tickets=n)
    wait_until(lambda: runtime.model(MODEL)["current"] == 1)
    yield calls
    for call in calls:
        call.hang_up()
    wait_until_at_rest(service)


def test_a_full_queue_refuses_at_once(service, full):
    refused, others = [], []
    for _ in range(200):
        refused.append(infer(service, MODEL).answer())
        others.append(Call(service, "/v1/status").answer().seconds)
    assert {(answer.status, answer.code) for answer in refused} == {(503, "queue_full")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    seconds = [answer.seconds for answer in refused]
    assert percentile(seconds, 95) < max(REFUSED_SECONDS, SLOWDOWN * percentile(others, 95))
    assert held(service, "tickets") == 2


def test_forty_at_once_get_three_places(service, runtime):
    # So long that all arrive before the second place is free, also when the machine is busy.
    runtime.control(first_token_ms=2000)
    found = [answer.status for answer in answers(burst(service, MODEL, 40))]
    # A place that is given back meanwhile may be taken by a late request.
    assert 3 <= found.count(200) <= 5
    assert found.count(503) == 40 - found.count(200)


def test_a_client_that_hangs_up_in_the_queue_frees_its_place_and_never_reaches_the_runtime(
    service, runtime, full
):
    full[1].hang_up()
    wait_until(lambda: held(service, "tickets") == 1)
    runtime.control(first_token_ms=0)
    late = infer(service, MODEL, "late")
    wait_until_held(service, permits=1, tickets=2)
    full[0].hang_up()
    assert [call.answer().status for call in (full[2], late)] == [200, 200]
    assert [each["prompt"] for each in runtime.stats()["arrivals"]] == ["held 0", "held 2", "late"]


@pytest.mark.parametrize(
    "behaviour",
    [{"first_token_ms": FOR_EVER_MS}, {"tokens": 10_000, "ms_per_token": 20}],
    ids=["before the first token", "while tokens come"],
)
def test_a_client_that_hangs_up_during_its_generation_stops_the_runtime(
    service, runtime, behaviour
):
    runtime.control(**behaviour)
    call = infer(service, MODEL, max_tokens=10_000)
    wait_until(lambda: runtime.stats()["starts"])
    call.hang_up()
    # A generation that goes on lasts 200 s at least.
    wait_until(lambda: runtime.model(MODEL)["current"] == 0)
    wait_until_at_rest(service)
    assert runtime.model(MODEL)["cancelled_generations"] == 1


def test_hanging_up_is_logged_as_499(service, full):
    def logged():
        return [x for x in service.log_lines("request") if x["status"] == 499]

    before = len(logged())
    for call in reversed(full):
        call.hang_up()
    lines = wait_until(lambda: logged()[before + 2 :] and logged()[before:])
    assert {(x["code"], x["model"]) for x in lines} == {("client_closed_request", MODEL)}
