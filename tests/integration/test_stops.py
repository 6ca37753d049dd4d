"""Stops: running requests may finish, waiting ones are refused at once, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
import requests

from tests.integration.helpers import (
    answers,
    asked,
    burst,
    connections,
    held,
    infer,
    leaks,
    living,
    wait_until_held,
)
from tests.support import process
from tests.support.process import wait_until

MODEL = "mistral:7b"


@pytest.fixture
def started(service):
    """Return a function that starts a service and waits until its workers are ready."""

    def start(**options):
        running = service(models={MODEL: {"max_concurrent": 2, "timeout": 600}}, **options)
        wait_until(lambda: len(living(running)) == 4)
        assert asked(running, MODEL).status == 200
        return running

    return start


def stopping(running):
    return running.get("/ready").json().get("service") == "it is shutting down"


def nothing_is_left(running):
    left = {path.name for path in (running.state_dir / "workers").iterdir()}
    return not process.group(running.process.pid) and not left and not leaks(running)


def test_running_requests_finish_and_waiting_ones_are_refused_at_once(started, fake_ollama):
    running = started()
    fake_ollama.control(first_token_ms=2000)
    calls = burst(running, MODEL, 6)
    wait_until_held(running, permits=2, tickets=4)
    with connections(running, 20):
        running.terminate()
        answered = answers(calls)
        assert running.wait(15) == 0
    refused = [answer for answer in answered if answer.status != 200]
    assert [answer.code for answer in refused] == ["shutting_down"] * 4
    assert {answer.headers["retry-after"] for answer in refused} == {"5"}
    served = [answer for answer in answered if answer.status == 200]
    assert max(each.seconds for each in refused) < min(each.seconds for each in served)
    assert nothing_is_left(running)
    assert running.other_lines() == []


def test_a_stop_waits_for_graceful_timeout_and_answers_running_requests(started, fake_ollama):
    running = started(GRACEFUL_TIMEOUT=1)
    fake_ollama.control(first_token_ms=600_000)
    calls = burst(running, MODEL, 2)
    wait_until(lambda: fake_ollama.model(MODEL)["current"] == 2)
    running.terminate()
    answered = answers(calls)
    assert [answer.code for answer in answered] == ["shutting_down"] * 2
    assert running.wait(10) == 0
    wait_until(lambda: fake_ollama.model(MODEL)["current"] == 0, seconds=1)
    assert nothing_is_left(running)


def test_a_request_whose_model_loads_is_answered_when_the_load_is_cancelled(started, fake_ollama):
    running = started(GRACEFUL_TIMEOUT=1)
    running.post(f"/v1/models/{MODEL}/unload")
    fake_ollama.control(load_seconds=600)
    call = infer(running, MODEL)
    wait_until(lambda: fake_ollama.model(MODEL)["state"] == "loading")
    running.terminate()
    assert call.answer().code == "shutting_down"
    assert running.wait(10) == 0
    wait_until(lambda: fake_ollama.model(MODEL)["cancelled_loads"] == 1)
    assert nothing_is_left(running)


def test_ready_fails_first_and_requests_are_served_for_stop_notice(started, fake_ollama):
    running = started(STOP_NOTICE=3)
    began = time.monotonic()
    running.terminate()
    wait_until(lambda: stopping(running), seconds=2)
    assert running.get("/ready").status_code == 503
    assert running.get("/health").status_code == 200
    assert asked(running, MODEL).status == 200
    assert running.wait(15) == 0
    assert time.monotonic() - began >= 3


def test_requests_on_kept_connections_are_refused_and_new_connections_fail(started, fake_ollama):
    running = started()
    fake_ollama.control(first_token_ms=3000)
    call = infer(running, MODEL)
    wait_until_held(running, permits=1, tickets=0)
    kept = kept_connections(running, 8)
    running.terminate()
    wait_until(lambda: not can_connect(running), seconds=5)
    body = {"model_id": MODEL, "prompt": "Hello"}
    refused = [session.post(f"{running.url}/v1/inference", json=body) for session in kept]
    assert {answer.json()["code"] for answer in refused} == {"shutting_down"}
    assert {answer.headers["Connection"] for answer in refused} == {"close"}
    assert call.answer().status == 200
    assert running.wait(15) == 0


def kept_connections(running, number):
    kept = [requests.Session() for _ in range(number)]
    for session in kept:
        session.trust_env = False
        session.headers["Authorization"] = "Bearer a-key-for-tests"
        assert session.get(f"{running.url}/v1/status").status_code == 200
    return kept


def can_connect(running):
    try:
        socket.create_connection(("127.0.0.1", running.port), timeout=5).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset while the listener closes
        return False
    return True


def test_connections_in_the_backlog_are_answered(started):
    running = started()
    workers = living(running)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    calls = burst(running, MODEL, 5)
    running.terminate()
    time.sleep(0.5)  # the master has signalled the workers, which are stopped
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    # A connection that a worker accepts before its signal is served; the others are refused.
    assert all(a.status == 200 or a.code == "shutting_down" for a in answers(calls))
    assert running.wait(15) == 0


SLOW_FORK = """
import functools
import time
from gunicorn.workers.gthread import ThreadWorker
real = ThreadWorker.init_process
@functools.wraps(real)
def slow(self):
    time.sleep(1.5)
    real(self)
ThreadWorker.init_process = slow
"""


@pytest.fixture
def slowly_forked(service, tmp_path):
    """Start a service whose workers have not installed their signal handlers yet."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_FORK)
    running = service(wait_healthy=False, PYTHONPATH=tmp_path)
    wait_until(lambda: forked(running))
    return running


def forked(running):
    return running.worker_pids() if "Using worker" in running.text() else []


def test_a_stop_while_workers_are_being_forked_is_not_lost(slowly_forked):
    began = time.monotonic()
    slowly_forked.terminate()
    assert slowly_forked.wait(30) == 0
    assert time.monotonic() - began < 20


def test_a_worker_that_is_terminated_while_it_is_being_forked_ends(slowly_forked):
    worker = forked(slowly_forked)[0]
    time.sleep(0.2)  # it has left the master's code by then, and will not be back for a second
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: worker not in slowly_forked.worker_pids(), seconds=20)


def test_workers_whose_master_was_killed_end_and_refuse_waiting_requests(started, fake_ollama):
    running = started()
    fake_ollama.control(first_token_ms=3000)
    calls = burst(running, MODEL, 4)
    wait_until_held(running, permits=2, tickets=2)
    os.kill(running.process.pid, signal.SIGKILL)
    answered = answers(calls)
    assert sorted(answer.status for answer in answered) == [200, 200, 503, 503]
    wait_until(lambda: not process.group(running.process.pid), seconds=10)


def test_a_killed_master_is_followed_by_another_at_once_and_the_limits_hold(started, fake_ollama):
    running = started()
    fake_ollama.control(first_token_ms=6000)
    calls = burst(running, MODEL, 2)
    wait_until(lambda: fake_ollama.model(MODEL)["current"] == 2)
    wait_until(lambda: held(running, "permits") == 2)
    time.sleep(0.5)  # some rounds of the leader
    os.kill(running.process.pid, signal.SIGKILL)
    wait_until(lambda: not can_connect(running))
    fake_ollama.control(first_token_ms=100)
    running.start()
    wait_until(lambda: can_connect(running))
    later = burst(running, MODEL, 2)
    assert {answer.status for answer in answers(calls + later)} == {200}
    assert fake_ollama.model(MODEL)["peak"] == 2


def test_health_is_answered_while_a_stop_waits(started, fake_ollama):
    running = started()
    fake_ollama.control(first_token_ms=2000)
    call = infer(running, MODEL)
    wait_until_held(running, permits=1, tickets=0)
    (session,) = kept_connections(running, 1)
    running.terminate()
    wait_until(lambda: not can_connect(running), seconds=5)
    assert session.get(f"{running.url}/ready").json()["service"] == "it is shutting down"
    assert call.answer().status == 200
    assert running.wait(15) == 0
