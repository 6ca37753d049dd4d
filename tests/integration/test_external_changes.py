"""Models that another client of the runtime removes or replaces are shown as they are."""

from __future__ import annotations

import pytest

from tests.support.process import wait_until

MODEL = "phi3:mini"


@pytest.fixture
def running(service, fake_ollama):
    running = service(models={MODEL: {}}, WEB_CONCURRENCY=2)
    running.wait_until_ready()
    assert running.infer(MODEL).status_code == 200
    return running


def status(running) -> str:
    (model,) = running.get("/v1/models").json()["models"]
    return str(model["status"])


def digest(running) -> str:
    return str(running.infer(MODEL).json()["provenance"]["model_digest"])


def test_a_model_that_was_removed_is_not_pulled(running, fake_ollama):
    fake_ollama.control(pulled=["mistral:7b"])
    wait_until(lambda: status(running) == "not_pulled")
    refused = running.infer(MODEL)
    assert (refused.status_code, refused.json()["code"]) == (404, "model_not_pulled")

    fake_ollama.control(pulled=[MODEL])
    wait_until(lambda: running.infer(MODEL).status_code == 200)


def test_a_replaced_model_has_another_digest(running, fake_ollama):
    before = digest(running)
    fake_ollama.control(replaced=[MODEL])
    wait_until(lambda: digest(running) != before)
    shown = f"/v1/models/{MODEL}"
    wait_until(lambda: running.get(shown).json()["digest"] == digest(running))
