"""Bursts of connections on the shipped catalog: each request waits for its turn."""

from __future__ import annotations

import json

import pytest

from tests.integration.helpers import Call, answers, burst, wait_until_at_rest, wait_until_held
from tests.support.process import ROOT, wait_until

CATALOG = ROOT / "config" / "models.json"
MODEL = "llama3.1:8b"
LIMITS = json.loads(CATALOG.read_text())["models"][MODEL]
RUNNING, WAITING = LIMITS["max_concurrent"], LIMITS["max_queue"]
FOR_EVER_MS = 600_000

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(MODELS_CONFIG_PATH=CATALOG)


@pytest.fixture
def held(service, runtime):
    """Occupy all permits of the model until the end of the test."""
    runtime.control(first_token_ms=FOR_EVER_MS)
    calls = burst(service, MODEL, RUNNING)
    wait_until(lambda: runtime.model(MODEL)["current"] == RUNNING)
    runtime.control(first_token_ms=0)
    yield calls
    for call in calls:
        call.hang_up()
    wait_until_at_rest(service)


@pytest.mark.parametrize("number", [128, 200, WAITING])
def test_a_burst_of_connections_waits_and_is_answered(service, held, number):
    calls = burst(service, MODEL, number)
    wait_until_held(service, permits=RUNNING, tickets=number)
    for path in ("/health", "/v1/status"):
        assert Call(service, path).answer().status == 200
    for call in held:
        call.hang_up()
    assert [answer.status for answer in answers(calls)] == [200] * number


def test_one_request_more_than_the_queue_holds_is_refused(service, held):
    calls = burst(service, MODEL, WAITING)
    wait_until_held(service, permits=RUNNING, tickets=WAITING)
    (refused,) = answers(burst(service, MODEL, 1))
    assert (refused.status, refused.code) == (503, "queue_full")
    for call in calls:
        call.hang_up()
