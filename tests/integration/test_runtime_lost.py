"""A runtime that is killed: clean errors while it is down, and its true state when it is back."""

from __future__ import annotations

import pytest

from tests.integration.helpers import asked, crowd, infer, wait_until_at_rest
from tests.support.process import wait_until

MODELS = ("mistral:7b", "phi3:mini")
# A request that a dead runtime blocks would take this long.
TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def service(start):
    return start(models={m: {"max_concurrent": 2, "timeout": TIMEOUT_SECONDS} for m in MODELS})


@pytest.fixture(autouse=True)
def _check_invariants(service, clean):
    """Check after each test that nothing is left and no error was internal."""
    service.wait_until_ready()
    yield
    wait_until_at_rest(service)
    assert service.log_lines("internal_error") == []


def loaded(service):
    return sorted(service.get("/v1/status").json()["models_loaded"])


def wait_until_loaded(service, *models):
    """Wait until all workers report these models as loaded, and no others."""
    wait_until(lambda: all(loaded(service) == sorted(models) for _ in range(20)))


def test_a_runtime_killed_under_load_costs_clean_errors_until_it_is_back(service, runtime):
    runtime.control(ms_per_token=10)
    with crowd(8, lambda rng: asked(service, rng.choice(MODELS))) as seen:
        wait_until(lambda: len(seen) > 30)
        runtime.kill()
        wait_until(lambda: sum(answer.status != 200 for answer in seen) > 30)
        wait_until(lambda: service.get("/ready").status_code == 503)
        runtime.start()
        back = len(seen)
        wait_until(lambda: any(answer.status == 200 for answer in seen[back:]))
        wait_until(lambda: len(seen) > back + 30)
    failed = [answer for answer in seen if answer.status != 200]
    assert {(answer.status, answer.code) for answer in failed} <= {
        (502, "generation_aborted"),
        (503, "runtime_unavailable"),
    }
    assert all("retry-after" in answer.headers for answer in failed if answer.status == 503)
    assert max(answer.seconds for answer in seen) < TIMEOUT_SECONDS / 2
    wait_until_loaded(service, *MODELS)
    assert runtime.stats()["peak_loaded"] == 2


def test_a_runtime_that_comes_back_empty_is_seen_to_be_empty(service, runtime):
    for model in MODELS:
        service.post(f"/v1/models/{model}/load").raise_for_status()
    wait_until_loaded(service, *MODELS)
    runtime.restart()
    wait_until_loaded(service)
    assert asked(service, MODELS[0]).status == 200
    wait_until_loaded(service, MODELS[0])
    assert runtime.model(MODELS[0])["implicit_loads"] == 0


def test_a_runtime_killed_while_it_loads_is_not_the_models_fault(service, runtime):
    service.post(f"/v1/models/{MODELS[1]}/unload").raise_for_status()
    runtime.control(load_seconds=600)
    call = infer(service, MODELS[1])
    wait_until(lambda: runtime.model(MODELS[1])["state"] == "loading")
    runtime.kill()
    answer = call.answer(20)
    assert (answer.status, answer.code) == (503, "runtime_unavailable")
    runtime.start()
    wait_until(lambda: asked(service, MODELS[1]).status == 200)


def test_a_runtime_that_is_down_is_reported_as_down(service, runtime):
    runtime.kill()
    wait_until_loaded(service)
    assert service.get("/v1/status").json()["ollama_running"] is False
    answer = asked(service, MODELS[0])
    assert (answer.status, answer.code) == (503, "runtime_unavailable")
    assert answer.seconds < TIMEOUT_SECONDS / 2
    assert service.get("/health").status_code == 200
    # Each worker notices it at its own time.
    wait_until(lambda: "cannot be reached" in service.get("/ready").json()["runtime"])
    runtime.start()
    wait_until(lambda: service.get("/ready").status_code == 200)


def test_a_model_that_the_runtime_dropped_is_loaded_again(service, runtime):
    asked(service, MODELS[0])
    wait_until_loaded(service, MODELS[0])
    runtime.control(drop=[MODELS[0]])
    wait_until_loaded(service)
    assert asked(service, MODELS[0]).status == 200
    assert runtime.model(MODELS[0])["implicit_loads"] == 0
