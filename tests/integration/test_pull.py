"""Pulls under gunicorn: progress line by line, until the client hangs up."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from tests.integration.helpers import Call
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

HERE, ABSENT = "mistral:7b", "qwen3:8b"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {
        HERE: {"max_concurrent": 2, "max_queue": 4},
        ABSENT: {"max_concurrent": 1, "max_queue": 2},
    }
    return start(models=models, WEB_CONCURRENCY=1)


@pytest.fixture(autouse=True)
def absent(runtime: FakeOllama) -> None:
    runtime.control(pulled=[HERE], pull_seconds=0.0)


def pulling(service: Service):
    return service.post(f"/v1/models/{ABSENT}/pull", stream=True)


def broken_pulls(runtime: FakeOllama) -> int:
    return int(runtime.stats()["requests"].get("broken_pull", 0))


def status_of(service: Service) -> str:
    return str(service.get(f"/v1/models/{ABSENT}").json()["status"])


def test_a_pulled_model_can_be_used_at_once_and_shows_within_seconds(service):
    wait_until(lambda: status_of(service) == "not_pulled", why="the model is missing")
    *_, last = (json.loads(line) for line in pulling(service).iter_lines())
    assert last == {
        "type": "result",
        "success": True,
        "message": f"{ABSENT} is pulled",
        "model_id": ABSENT,
    }
    assert service.infer(ABSENT).status_code == 200
    wait_until(lambda: status_of(service) == "ready", why="the model is there")


def test_progress_arrives_at_once_and_hanging_up_ends_the_pull_in_the_runtime(service, runtime):
    runtime.control(pull_seconds=60.0)
    response = pulling(service)
    reading = response.iter_lines(chunk_size=1)  # keeps the connection open while it is referenced
    first = json.loads(next(reading))
    assert first["status"] == "pulling manifest"
    assert broken_pulls(runtime) == 0
    response.close()
    wait_until(lambda: broken_pulls(runtime) == 1)


def test_a_pull_that_breaks_off_is_reported_in_the_last_line(service, runtime):
    runtime.control(faults=[{"kind": "cut", "stage": "pull", "after": 2}])
    *_, last = (json.loads(line) for line in pulling(service).iter_lines())
    assert (last["type"], last["code"], last["status"]) == ("error", "pull_failed", 502)


def test_pulls_leave_threads_to_everything_else(service, runtime):
    runtime.control(pull_seconds=60.0)
    refused = threading.Event()
    calls = [Call(service, f"/v1/models/{ABSENT}/pull", {}) for _ in range(40)]
    readers = [threading.Thread(target=_set_if_refused, args=(call, refused)) for call in calls]
    for reader in readers:
        reader.start()
    assert refused.wait(30), "more pulls than wait slots, and none is refused"
    assert service.get("/health", timeout=20).status_code == 200
    assert service.get("/v1/status", timeout=20).status_code == 200
    for call in calls:
        call.sock.shutdown(socket.SHUT_RDWR)
    for reader in readers:
        reader.join(20)
    wait_until(lambda: service.infer(HERE).status_code == 200, why="the wait slots are free again")


def _set_if_refused(call: Call, refused: threading.Event) -> None:
    if b"503" in call.sock.recv(12):
        refused.set()
