"""The test harness: a service is a real process, can be damaged, and leaves nothing behind."""

import socket
from functools import partial

import pytest
import requests

from tests.support.process import group, wait_until
from tests.support.service import KEY, Service


def test_a_started_service_answers_with_the_output_of_the_fake_runtime(service, fake_ollama):
    fake_ollama.control(reply="well met")
    answer = service(models={"mistral:7b": {}}).infer("mistral:7b", "hello")
    assert answer.json()["output"] == "well met"
    assert fake_ollama.stats()["implicit_loads"] == 0


def test_it_writes_json_lines_only_and_never_the_key(service):
    running = service()
    running.get("/v1/models")
    assert running.stop() == 0
    assert running.other_lines() == []
    assert running.log_lines("request")[-1]["status"] == 200
    assert KEY not in running.text()


def test_a_killed_worker_is_replaced(service):
    running = service(WEB_CONCURRENCY=2)
    wait_until(lambda: len(running.worker_pids()) == 2)
    victim = running.worker_pids()[0]
    running.kill_worker(victim)
    wait_until(lambda: len(running.worker_pids()) == 2 and victim not in running.worker_pids())


def test_nothing_is_left_of_a_service_even_if_the_test_fails(tmp_path, fake_ollama):
    def fail():
        with Service(tmp_path, ollama_url=fake_ollama.url) as running:
            seen.append(running)
            raise ZeroDivisionError

    seen: list[Service] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not seen[0].state_dir.exists()
    assert group(seen[0].process.pid) == []
    # The port may serve as the address of another connection for a moment.
    wait_until(partial(_refuses_connections, seen[0].port))


def _refuses_connections(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_service_that_does_not_start_shows_the_reason(tmp_path, fake_ollama):
    with pytest.raises(AssertionError, match="MAX_LOADED_MODELS: '0' is invalid"):
        Service(tmp_path, ollama_url=fake_ollama.url, MAX_LOADED_MODELS=0)


def test_the_developers_own_settings_do_not_reach_it(service, monkeypatch):
    monkeypatch.setenv("MAX_BODY_BYTES", "nonsense")
    assert requests.get(f"{service().url}/health", timeout=5).status_code == 200
