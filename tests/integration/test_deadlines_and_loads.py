"""Deadlines and failing loads: errors in time, without an effect on other requests."""

from __future__ import annotations

import re

import pytest

from tests.integration.helpers import (
    answers,
    asked,
    burst,
    infer,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until

MODEL, OTHER = "mistral:7b", "phi3:mini"
FOR_EVER_MS = 600_000
# Without its limit a request waits `FOR_EVER_MS`, or 200 s for tokens that drip.
MUCH_LATER_SECONDS = 10.0
COOLDOWN_SECONDS = 4
# Longer than two loads that fail take on a busy machine.
QUEUE_TIMEOUT = 5.0

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(
        models={model: {"max_concurrent": 1, "timeout": 600} for model in (MODEL, OTHER)},
        QUEUE_TIMEOUT=QUEUE_TIMEOUT,
        LOAD_RETRY_PAUSE=0.1,
        COOLDOWN=COOLDOWN_SECONDS,
    )


@pytest.fixture
def cold(service):
    service.post(f"/v1/models/{MODEL}/unload").raise_for_status()


@pytest.mark.parametrize(
    ("behaviour", "progress"),
    [
        ({"first_token_ms": FOR_EVER_MS}, "no token was generated"),
        ({"tokens": 10_000, "ms_per_token": 20}, r"\d+ tokens were generated"),
        ({"faults": [{"kind": "hang", "stage": "generate"}]}, "no token was generated"),
        (
            {"faults": [{"kind": "silence", "stage": "generate", "after": 2}]},
            "2 tokens were generated",
        ),
    ],
    ids=["no token", "drips", "no headers", "falls silent"],
)
def test_a_generation_ends_at_its_deadline(service, runtime, behaviour, progress):
    assert asked(service, MODEL).status == 200
    runtime.control(**behaviour)
    answer = asked(service, MODEL, timeout=1, max_tokens=10_000)
    assert (answer.status, answer.code) == (504, "generation_timeout")
    start = r"the generation did not end within 1 s \(timeout of the request\): "
    end = ", of at most 10000; raise it, or lower max_tokens"
    assert re.fullmatch(start + progress + end, answer.json()["detail"])
    assert 1.0 <= answer.seconds < MUCH_LATER_SECONDS
    wait_until(lambda: runtime.model(MODEL)["current"] == 0)
    wait_until_at_rest(service)
    runtime.control(tokens=4, ms_per_token=0, first_token_ms=0)
    assert asked(service, MODEL).status == 200


def test_waiting_longer_than_the_queue_timeout_is_an_error(service, runtime):
    assert asked(service, MODEL).status == 200
    runtime.control(first_token_ms=FOR_EVER_MS)
    with infer(service, MODEL) as holder:
        wait_until_held(service, permits=1, tickets=0)
        found = answers(burst(service, MODEL, 3))
        assert {(answer.status, answer.code) for answer in found} == {(503, "queue_timeout")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in found)
        assert all(0 <= a.seconds - QUEUE_TIMEOUT < MUCH_LATER_SECONDS for a in found)
        wait_until_held(service, permits=1, tickets=0)
        holder.hang_up()
    wait_until_at_rest(service)
    assert runtime.model(MODEL)["generations"] == 2


@pytest.mark.usefixtures("cold")
def test_a_load_that_fails_once_is_tried_again(service, runtime):
    runtime.control(load_failures={MODEL: {"times": 1}})
    found = answers(burst(service, MODEL, 5))
    assert {answer.status for answer in found} == {200}
    assert (runtime.model(MODEL)["failed_loads"], runtime.model(MODEL)["loads"]) == (1, 1)


@pytest.mark.usefixtures("cold")
def test_a_load_that_fails_twice_is_an_error_for_all_that_wait_while_others_go_on(service, runtime):
    assert asked(service, OTHER).status == 200
    runtime.control(load_seconds=1.0, load_failures={MODEL: {"times": 2, "text": "out of memory"}})
    waiting = burst(service, MODEL, 8)
    wait_until_held(service, permits=0, tickets=8)
    assert asked(service, OTHER).status == 200
    found = answers(waiting)
    assert {(answer.status, answer.code) for answer in found} == {(503, "model_unavailable")}
    assert all("out of memory" in answer.json()["detail"] for answer in found)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in found)
    # In the cooldown a request is refused without another load, which would take a minute.
    runtime.control(load_seconds=60)
    refused = asked(service, MODEL)
    assert (refused.code, refused.seconds < MUCH_LATER_SECONDS) == ("model_unavailable", True)
    assert (runtime.model(MODEL)["failed_loads"], runtime.model(MODEL)["loads"]) == (2, 0)
    runtime.control(load_seconds=0.02)
    assert asked(service, OTHER).status == 200
    wait_until(lambda: asked(service, MODEL).status == 200)


@pytest.mark.usefixtures("cold")
def test_a_client_that_caused_a_load_and_hung_up_does_not_break_it_for_others(service, runtime):
    runtime.control(load_seconds=0.5)
    first = infer(service, MODEL, "first")
    wait_until(lambda: runtime.model(MODEL)["state"] == "loading")
    second = infer(service, MODEL, "second")
    wait_until_held(service, permits=0, tickets=2)
    first.hang_up()
    assert second.answer().status == 200
    assert runtime.model(MODEL)["loads"] == 1
    assert [each["prompt"] for each in runtime.stats()["arrivals"]] == ["second"]
    wait_until_at_rest(service)
