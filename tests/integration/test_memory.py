"""Five models share room for two: one load for all that wait, and no eviction while in use."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.integration.helpers import (
    Answer,
    answers,
    asked,
    burst,
    crowd,
    infer,
    wait_until_at_rest,
)
from tests.support.process import wait_until

MODELS = ("llama3.1:8b", "mistral:7b", "phi3:mini", "codellama:7b", "gemma:2b")
LIMITS = {"max_concurrent": 2, "max_queue": 64}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models=dict.fromkeys(MODELS, LIMITS), MAX_LOADED_MODELS=2, SWAP_PATIENCE=0.3)


@pytest.fixture(autouse=True)
def _check_invariants(service, runtime):
    """Check after each test that no limit was exceeded."""
    yield
    wait_until_at_rest(service)
    stats = runtime.stats()
    assert stats["peak_loaded"] <= 2
    assert stats["unloaded_while_busy"] == 0
    assert stats["implicit_loads"] == stats["reloads"] == 0


def test_five_models_share_two_places_and_every_request_is_answered(service, runtime):
    runtime.control(load_seconds=0.05, unload_seconds=0.05, ms_per_token=5)
    with crowd(10, lambda rng: asked(service, rng.choice(MODELS))) as seen:
        wait_until(lambda: len(seen) >= 150, seconds=60)
    assert Counter(answer.status for answer in seen) == {200: len(seen)}
    assert runtime.stats()["peak_loaded"] == 2
    assert all(runtime.model(model)["loads"] > 1 for model in MODELS)


def test_clients_that_hang_up_at_any_moment_break_nothing(service, runtime):
    runtime.control(load_seconds=0.05, unload_seconds=0.05, ms_per_token=5)

    def hang_up(rng: random.Random) -> Answer:
        call = infer(service, rng.choice(MODELS))
        call.sock.settimeout(rng.uniform(0.0, 0.3))
        try:
            call.sock.recv(1)
        except OSError:
            pass  # it takes longer than this client waits
        call.hang_up()
        return Answer(0, {}, b"", 0.0)

    def stay(rng: random.Random) -> Answer:
        return asked(service, rng.choice(MODELS))

    with crowd(6, hang_up) as left, crowd(4, stay) as seen:
        wait_until(lambda: len(left) >= 60 and len(seen) >= 40, seconds=60)
    assert {answer.status for answer in seen} == {200}


def test_forty_at_once_for_a_cold_model_cause_one_load(service, runtime):
    for model in MODELS:
        service.post(f"/v1/models/{model}/unload").raise_for_status()
    runtime.control(load_seconds=0.3)
    found = answers(burst(service, MODELS[0], 40))
    assert {answer.status for answer in found} == {200}
    assert runtime.model(MODELS[0])["loads"] == runtime.stats()["requests"]["load"] == 1
    assert max(answer.json()["timings"]["load_ms"] for answer in found) >= 250
