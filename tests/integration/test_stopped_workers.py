"""A stopped worker that holds a lock: the others answer, and it delays them no longer than that."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.helpers import (
    LOST,
    Call,
    answers,
    asked,
    crowd,
    held,
    infer,
    living,
    wait_until_at_rest,
)
from tests.support.lock_holder import stopped_holder, stopped_worker
from tests.support.process import wait_until

MODEL = "mistral:7b"
LOCK_TIMEOUT = 0.5
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
INFERENCE = {"model_id": MODEL, "prompt": "Hello"}
DOORS = [
    ("/v1/inference", INFERENCE),
    ("/v1/inference", {**INFERENCE, "stream": True}),
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/completions", {"model": MODEL, "prompt": "Hello"}),
    (f"/v1/models/{MODEL}/unload", {}),
]

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    models = {MODEL: {"max_concurrent": 3, "max_queue": 60, "timeout": 600}}
    return start(models=models, LOCK_TIMEOUT=LOCK_TIMEOUT)


@pytest.fixture(autouse=True)
def _four_workers(service):
    wait_until(lambda: len(living(service)) == 4)
    wait_until_ready(service)


def wait_until_ready(service):
    wait_until(lambda: service.get("/ready").status_code == 200, why="/ready is 200")


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_the_others_answer_and_all_goes_on_when_it_continues_or_dies(service, runtime, end):
    lost = {LOST} if end == signal.SIGKILL else set()
    with crowd(8, lambda _: asked(service, MODEL)) as seen, stopped_worker(service) as pid:
        not_ready = wait_until(lambda: refused(service.get("/ready")))
        assert f"process {pid} (stopped)" in not_ready["state"]
        health = answers([Call(service, "/health") for _ in range(40)])
        assert {answer.status for answer in health} == {200}
        refusal = asked(service, MODEL)
        assert (refusal.status, refusal.code) == (503, "state_locked")
        assert refusal.headers["retry-after"] == "5"
        os.kill(pid, end)
        wait_until_ready(service)
    assert {answer.status for answer in seen} <= {200, 503} | lost
    assert {answer.code for answer in seen if answer.status == 503} <= {"state_locked"}
    wait_until_at_rest(service)
    assert runtime.model(MODEL)["peak"] <= 3
    assert asked(service, MODEL).status == 200
    locked = service.log_lines("state_locked")
    assert (pid, "stopped") in [(line.get("holder"), line.get("holder_state")) for line in locked]


def refused(response):
    return response.json() if response.status_code == 503 else None


def test_every_door_refuses_within_the_deadline_and_no_answer_is_lost(service, runtime):
    runtime.control(first_token_ms=1500)
    running = [infer(service, MODEL) for _ in range(3)]
    wait_until(lambda: held(service, "permits") == 3)
    with stopped_holder(service.state_dir / "registry.json"):
        refusals = answers([Call(service, path, body) for path, body in DOORS])
        assert {answer.status for answer in refusals} == {503}
        assert all(b"state_locked" in answer.body for answer in refusals)
        assert {answer.status for answer in answers(running)} == {200}
        assert held(service, "permits") == 3, "they are given back when the lock is free"
    wait_until_at_rest(service)
    runtime.control(first_token_ms=0)
    assert asked(service, MODEL).status == 200


def test_requests_are_answered_and_counted_while_the_counters_are_locked(service, runtime):
    (counts,) = service.state_dir.glob("metrics-*.counts")
    before = counted(service)
    with stopped_holder(counts):
        health = answers([Call(service, "/health") for _ in range(40)])
        assert {answer.status for answer in health} == {200}
        assert asked(service, MODEL).status == 200
    wait_until(lambda: counted(service) == before + 40, why="all are counted")


def counted(service):
    lines = service.get("/metrics").text.splitlines()
    name = "http_server_request_duration_seconds_count"
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(name) and "/health" in line
    )


def test_a_service_stops_although_a_stopped_process_holds_the_locks(start):
    service = start(models={MODEL: {}}, LOCK_TIMEOUT=LOCK_TIMEOUT, WEB_CONCURRENCY=1)
    with stopped_holder(service.state_dir / "registry.json"):
        service.terminate()
        assert service.wait(20) == 0
    assert service.log_lines("worker_not_started") == []
