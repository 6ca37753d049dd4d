"""Grouping: many requests for more models than fit cost few loads, and none starves."""

from __future__ import annotations

import time

import pytest

from tests.integration.helpers import answers, asked, crowd, infer
from tests.support.process import wait_until

A, B = "mistral:7b", "gemma:2b"
LIMITS = {"max_concurrent": 1, "max_queue": 200}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def service(start):
    def with_patience(seconds: float):
        models = {A: LIMITS, B: LIMITS}
        return start(models=models, MAX_LOADED_MODELS=1, SWAP_PATIENCE=seconds)

    return with_patience


def test_interleaved_requests_for_two_models_cost_two_loads(service, runtime):
    patient = service(60)
    # All requests arrive during the first load, also when the machine is busy.
    runtime.control(load_seconds=2.0, unload_seconds=0.05, ms_per_token=2)
    found = answers([infer(patient, (A, B)[n % 2]) for n in range(60)])
    assert {answer.status for answer in found} == {200}
    stats = runtime.stats()
    assert (runtime.model(A)["loads"], runtime.model(B)["loads"]) == (1, 1)
    assert stats["peak_loaded"] == 1


def test_a_request_for_another_model_is_overtaken_for_no_longer_than_the_patience(service, runtime):
    impatient = service(1.0)
    runtime.control(load_seconds=0.1, unload_seconds=0.05, ms_per_token=2)
    # So many that one always waits, also when the machine is busy.
    with crowd(20, lambda rng: asked(impatient, A)) as seen:
        wait_until(lambda: len(seen) > 20)
        began = time.monotonic()
        answer = asked(impatient, B)
        waited = time.monotonic() - began
    assert answer.status == 200
    # The patience, then a drain, a swap and the generation itself. Without the patience it would
    # wait until the other clients stop, so `asked` would fail after a minute.
    assert 0.5 < waited < 20.0
    status = impatient.get("/v1/status").json()
    assert {model["id"]: model["evictions"] > 0 for model in status["models"]}[A]
