"""The start of a service: after a kill, with models to preload, without a runtime."""

from __future__ import annotations

import pytest

from tests.integration.helpers import (
    LOST,
    Call,
    answers,
    asked,
    burst,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support import process
from tests.support.process import wait_until

MODEL, OTHER = "mistral:7b", "phi3:mini"


def registry_bytes(running):
    path = running.state_dir / "registry.json"
    return path.read_bytes() if path.exists() else b""


def test_the_files_of_a_killed_service_do_not_disturb_the_next(service, fake_ollama):
    running = service(models={MODEL: {"max_concurrent": 1, "timeout": 600}})
    fake_ollama.control(first_token_ms=600_000)
    calls = burst(running, MODEL, 5)
    wait_until_held(running, permits=1, tickets=4)
    wait_until(lambda: b'"tickets":{"' in registry_bytes(running), why="the tickets are stored")
    left = {path.name for path in (running.state_dir / "workers").iterdir()}
    process.kill(running.process)
    assert {answer.status for answer in answers(calls)} == {LOST}
    assert registry_bytes(running)
    fake_ollama.control(first_token_ms=0)
    running.start()
    running.wait_until_healthy()
    assert asked(running, MODEL).status == 200
    wait_until_at_rest(running)
    names = {path.name for path in (running.state_dir / "workers").iterdir()}
    assert not names & left


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_the_first_answer_after_a_restart_reports_its_load_and_the_runtime(
    service, fake_ollama, is_in_memory
):
    running = service(models={MODEL: {}})
    assert asked(running, MODEL).json()["timings"]["cold_start"] is True
    running.stop()
    if not is_in_memory:
        fake_ollama.restart()
        # The first request arrives before the models in memory are known.
        fake_ollama.control(faults=[{"kind": "hang", "stage": "ps"}])
    fake_ollama.control(load_seconds=1.0)
    running.start()
    running.wait_until_healthy()
    answer = asked(running, MODEL).json()
    assert answer["provenance"]["runtime"] is not None
    assert answer["timings"]["cold_start"] is not is_in_memory
    assert (answer["timings"]["load_ms"] >= 1000) is not is_in_memory


def test_preloading_delays_no_request_and_happens_once(service, fake_ollama):
    fake_ollama.control(load_seconds=2.0)
    running = service(models={MODEL: {"preload": True}, OTHER: {}})
    assert fake_ollama.model(MODEL)["state"] != "loaded"
    assert Call(running, "/health").answer().seconds < 1
    wait_until(lambda: fake_ollama.model(MODEL)["state"] == "loaded")
    wait_until_at_rest(running)
    answer = asked(running, MODEL)
    assert answer.json()["timings"]["cold_start"] is False
    assert fake_ollama.model(MODEL)["loads"] == 1
    assert fake_ollama.model(OTHER)["loads"] == 0


def test_a_start_without_a_runtime_serves_once_the_runtime_is_there(service, fake_ollama):
    fake_ollama.kill()
    running = service(models={MODEL: {"preload": True}})
    assert running.get("/ready").status_code == 503
    assert asked(running, MODEL).code == "runtime_unavailable"
    fake_ollama.start()
    wait_until(lambda: asked(running, MODEL).status == 200, seconds=2)
    wait_until(lambda: running.get("/ready").status_code == 200, seconds=2)
