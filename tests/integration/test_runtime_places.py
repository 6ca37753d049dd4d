"""A runtime that holds fewer models than MES counts: no request hangs, and MES finds it out."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.helpers import answers, infer, wait_until_at_rest
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

A, B = "mistral:7b", "phi3:mini"


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama("--models", f"{A},{B}", "--places", "1") as fake:
        yield fake


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {model: {"max_concurrent": 2, "max_queue": 60, "timeout": 60} for model in (A, B)}
    return start(models=models, MAX_LOADED_MODELS=2, WEB_CONCURRENCY=2)


def test_two_models_on_a_runtime_with_one_place_are_served_to_the_last(service, runtime):
    runtime.control(load_seconds=0.1, first_token_ms=100)
    # The two generations of A overlap, so that A is busy when the runtime has to make room for B.
    calls = [infer(service, A)]
    wait_until(lambda: runtime.model(A)["current"] == 1)
    time.sleep(0.05)
    calls += [infer(service, A) for _ in range(20)]
    wait_until(lambda: runtime.model(A)["current"] == 2)
    calls += [infer(service, (B, A)[n % 2]) for n in range(40)]
    assert [answer.status for answer in answers(calls, 30)] == [200] * 61


def served_by_both(service: Service) -> bool:
    """Send requests for both models, and return whether all are answered."""
    calls = [infer(service, (A, B)[n % 2]) for n in range(6)]
    return {answer.status for answer in answers(calls)} == {200}


def test_the_place_is_found_and_reported(service):
    def places():
        return service.get("/v1/status").json()["effective_max_loaded_models"]

    wait_until(lambda: places() == 1 or not served_by_both(service), seconds=30)
    assert places() == 1
    assert service.get("/v1/status").json()["max_loaded_models"] == 2
    ready = service.get("/ready")
    assert ready.status_code == 200
    assert "holds 1 of the 2 models of MAX_LOADED_MODELS" in ready.json()["runtime_places"]
    found = service.log_lines("fewer_places_found")
    assert [(line["places"], line["configured"]) for line in found] == [(1, 2)]


def test_once_the_place_is_found_mes_makes_room_and_the_runtime_does_not(service, runtime):
    wait_until_at_rest(service)
    runtime.reset()
    assert served_by_both(service)
    stats = runtime.stats()
    assert (stats["evictions"], stats["implicit_loads"]) == (0, 0)


def test_after_a_restart_of_the_runtime_all_places_are_tried_again(service, runtime):
    runtime.kill()
    wait_until(lambda: service.get("/ready").status_code == 503)
    runtime.start()
    runtime.control(places=2)
    wait_until(lambda: service.get("/ready").status_code == 200)
    assert service.get("/ready").json()["runtime_places"] == "ok"
    assert served_by_both(service)
    wait_until(lambda: sorted(service.get("/v1/status").json()["models_loaded"]) == [A, B])
