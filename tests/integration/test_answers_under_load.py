"""Responses that need no model are immediate, however many requests run and wait."""

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
# The limits for 99 of 100 requests and for the slowest. Requests that waited for a place would take
# QUEUE_TIMEOUT (300 s). A busy machine is slow even when the service is idle, so the limits are at
# least `SLOWDOWN` times the seconds of the idle service.
QUICK_SECONDS = 0.1
SLOWEST_SECONDS = 1.0
SLOWDOWN = 10

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 2, "max_queue": 8, "timeout": 600}})


@pytest.fixture
def idle_seconds(service):
    """Return the seconds of each request to the idle service."""
    return measure(service)


@pytest.fixture
def full(idle_seconds, service, runtime):
    """Take every permit and every place in the queue."""
    runtime.control(first_token_ms=600_000)
    with ExitStack() as calls:
        for call in burst(service, MODEL, 10):
            calls.enter_context(call)
        wait_until_held(service, permits=2, tickets=8)
        yield
    wait_until_at_rest(service)


def measure(service, rounds=75):
    """Return the seconds of each of many requests, each on a new connection."""
    found = [Call(service, path).answer() for _ in range(rounds) for path in PATHS]
    assert {answer.status for answer in found} == {200}
    return [answer.seconds for answer in found]


def assert_quick(service, idle_seconds):
    seconds = measure(service)
    usual = percentile(idle_seconds, 99)
    assert percentile(seconds, 99) < max(QUICK_SECONDS, SLOWDOWN * usual)
    # One request that hangs keeps those behind it from hanging too, so the percentile misses it.
    assert max(seconds) < max(SLOWEST_SECONDS, SLOWDOWN * max(idle_seconds))


@pytest.mark.usefixtures("full")
def test_status_is_immediate_while_every_place_is_taken(service, idle_seconds):
    assert_quick(service, idle_seconds)


@pytest.mark.usefixtures("full")
def test_status_is_immediate_while_other_clients_keep_retrying(service, idle_seconds):
    def ask(_) -> Answer:
        answer = infer(service, MODEL).answer()
        time.sleep(0.2)  # sooner than Retry-After allows
        return answer

    with crowd(40, ask) as refused:
        wait_until(lambda: len(refused) > 40)
        assert_quick(service, idle_seconds)
    assert {answer.code for answer in refused} == {"queue_full"}


@pytest.mark.usefixtures("full")
def test_more_idle_connections_than_threads_delay_no_client(service, idle_seconds):
    with connections(service, 200):
        assert_quick(service, idle_seconds)


@pytest.mark.usefixtures("full")
def test_clients_that_do_not_close_delay_no_other_client(service, idle_seconds):
    request = b"GET /health HTTP/1.1\r\nHost: mes\r\nConnection: close\r\n\r\n"
    with connections(service, 60, request):
        assert_quick(service, idle_seconds)


def test_clients_that_send_slowly_delay_no_other_client(service, idle_seconds):
    # Enough to take all threads of one worker (26), though not those of all four.
    with connections(service, 30, b"GET /health HTTP/1.1\r\nHost:"):
        assert_quick(service, idle_seconds)
