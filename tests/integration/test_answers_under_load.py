"""Answers under load: what needs no model is answered at once, however full the service is."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.integration.helpers import (
    Answer,
    Call,
    burst,
    connections,
    crowd,
    infer,
    percentile,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until

MODEL = "phi3:mini"
PATHS = ("/health", "/ready", "/v1/status", "/v1/models")
QUICK_SECONDS = 0.1

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 2, "max_queue": 8, "timeout": 600}})


@pytest.fixture
def full(service, runtime):
    """Every permit and every place in the queue is taken."""
    runtime.control(first_token_ms=600_000)
    with ExitStack() as calls:
        for call in burst(service, MODEL, 10):
            calls.enter_context(call)
        wait_until_held(service, permits=2, tickets=8)
        yield
    wait_until_at_rest(service)


def assert_quick(service, paths=PATHS, rounds=75):
    """On fresh connections, 99 of 100 answers come in time."""
    found = [Call(service, path).answer() for _ in range(rounds) for path in paths]
    assert {answer.status for answer in found} == {200}
    seconds = [answer.seconds for answer in found]
    assert percentile(seconds, 99) < QUICK_SECONDS
    # One probe that hangs keeps those behind it from hanging too.
    assert max(seconds) < 1


@pytest.mark.usefixtures("full")
def test_status_is_told_at_once_while_every_place_is_taken(service):
    assert_quick(service)


@pytest.mark.usefixtures("full")
def test_status_is_told_at_once_while_others_press_for_a_place(service):
    def ask(_) -> Answer:
        answer = infer(service, MODEL).answer()
        time.sleep(0.2)  # a caller that comes back sooner than it was told to
        return answer

    with crowd(40, ask) as refused:
        wait_until(lambda: len(refused) > 40)
        assert_quick(service)
    assert {answer.code for answer in refused} == {"queue_full"}


@pytest.mark.usefixtures("full")
def test_more_idle_connections_than_threads_hold_nobody_up(service):
    with connections(service, 200):
        assert_quick(service)


@pytest.mark.usefixtures("full")
def test_clients_that_do_not_close_hold_nobody_up(service):
    request = b"GET /health HTTP/1.1\r\nHost: mes\r\nConnection: close\r\n\r\n"
    with connections(service, 60, request):
        assert_quick(service)


def test_clients_that_send_slowly_hold_nobody_up(service):
    # Enough to take all threads of one worker (26), though not those of all four.
    with connections(service, 30, b"GET /health HTTP/1.1\r\nHost:"):
        assert_quick(service)
