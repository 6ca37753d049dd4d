"""Models that the runtime drops while they are used: it loads them again, and limits hold."""

from __future__ import annotations

import pytest

from tests.integration.helpers import asked, infer, registry, wait_until_at_rest
from tests.support.process import wait_until

USED, OTHER = "mistral:7b", "phi3:mini"


@pytest.fixture(scope="module")
def service(start):
    models = {model: {"max_concurrent": 1, "timeout": 30} for model in (USED, OTHER)}
    return start(models=models, MAX_LOADED_MODELS=1, SWAP_PATIENCE=0)


@pytest.fixture(autouse=True)
def _used_is_loaded(service, runtime, clean):
    assert asked(service, USED).status == 200
    runtime.reset()
    yield
    wait_until_at_rest(service)
    assert service.log_lines("internal_error") == []


def lose_while_used(service, runtime, **behaviour):
    """Drop the model. Return a request that arrives before this is noticed, so it loads again."""
    runtime.control(drop=[USED], **behaviour)
    call = infer(service, USED)
    wait_until(lambda: runtime.model(USED)["state"] == "loading")
    return call


def test_nothing_is_loaded_beside_a_model_that_the_runtime_loads_by_itself(service, runtime):
    first = lose_while_used(service, runtime, load_seconds=3.0)
    second = infer(service, OTHER)
    assert (first.answer().status, second.answer().status) == (200, 200)
    assert runtime.stats()["peak_loaded"] == 1
    assert runtime.model(OTHER)["loads"] == 1


def test_a_missing_model_serves_again_once_the_runtime_has_loaded_it(service, runtime):
    first = lose_while_used(service, runtime, load_seconds=6.0)
    wait_until(lambda: [x["phase"] for x in registry(service)["registry"]] == ["missing"])
    assert service.get("/v1/models").json()["models"][0]["status"] == "loading"
    second = infer(service, USED)
    assert (first.answer().status, second.answer().status) == (200, 200)
    assert runtime.model(USED)["loads"] == 1


def test_a_missing_model_without_waiting_requests_gives_up_its_place(service, runtime):
    first = lose_while_used(service, runtime, load_seconds=30.0)
    wait_until(lambda: [x["phase"] for x in registry(service)["registry"]] == ["missing"])
    first.hang_up()
    runtime.control(load_seconds=0.02)
    assert asked(service, OTHER).status == 200
    assert runtime.stats()["peak_loaded"] == 1
