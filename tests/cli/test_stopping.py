"""How `make run` stops: at once with a line, requests get their answers, and the log keeps all."""

from __future__ import annotations

import json
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.helpers import Call, answers, restore_defaults
from tests.support import process
from tests.support.process import wait_until
from tests.support.served import Served
from tests.support.service import catalog

MODEL = "mistral:7b"


@pytest.fixture
def serve(tmp_path, fake_ollama):
    """Return a function that starts the quickstart in front of the fake runtime."""
    restore_defaults(fake_ollama)
    models = catalog(tmp_path / "models.json", **{MODEL: {"max_concurrent": 2, "timeout": 600}})

    @contextmanager
    def start(**settings):
        settings = {
            "OLLAMA_HOST": fake_ollama.url,
            "MODELS_CONFIG_PATH": str(models),
            "STATE_DIR": str(tmp_path / "state"),
            "MES_API_KEY": "a-key-for-tests",
            "ALLOWED_HOSTS": "mes",
            "WEB_CONCURRENCY": "1",
            **settings,
        }
        with Served(Path(tempfile.mkdtemp(dir=tmp_path)), **settings) as served:
            yield served

    return start


def infer(served):
    return Call(served, "/v1/inference", {"model_id": MODEL, "prompt": "Hello"})


def running(fake_ollama, number):
    wait_until(lambda: fake_ollama.model(MODEL)["current"] == number)


def logged(served):
    lines = served.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_ctrl_c_waits_for_requests_and_leaves_nothing_to_warn_of(serve, fake_ollama, tmp_path):
    with serve(GRACEFUL_TIMEOUT="1") as served:
        fake_ollama.control(first_token_ms=500)
        calls = [infer(served)]
        running(fake_ollama, 1)
        fake_ollama.control(first_token_ms=600_000)
        calls.append(infer(served))
        running(fake_ollama, 2)
        calls.append(infer(served))
        wait_until(lambda: any(each["queued"] for each in models(served)))
        served.process.send_signal(signal.SIGINT)
        finished, too_slow, waiting = answers(calls)
        assert served.process.wait(20) == 0
    assert finished.status == 200
    assert (too_slow.code, waiting.code) == ("shutting_down", "shutting_down")
    assert (
        "mes: stopping; 2 requests run and have up to 1 s (GRACEFUL_TIMEOUT) to finish; those that "
        "wait are refused: 1; Ctrl-C again ends them at once\nmes: stopped\n"
    ) in served.text
    lines = logged(served)
    (stopping,) = (line for line in lines if line["event"] == "stopping")
    assert (stopping["running"], stopping["waiting"]) == (2, 1)
    codes = [line["code"] for line in lines if line.get("path") == "/v1/inference"]
    assert sorted(map(str, codes)) == ["None", "shutting_down", "shutting_down"]
    assert list((tmp_path / "state" / "workers").iterdir()) == [], "the next start would warn"


def models(served):
    return Call(served, "/v1/status").answer().json()["models"]


def test_ctrl_c_again_ends_the_requests_at_once(serve, fake_ollama):
    with serve() as served:
        fake_ollama.control(first_token_ms=600_000)
        call = infer(served)
        running(fake_ollama, 1)
        (service,) = process.children(served.process.pid)
        served.process.send_signal(signal.SIGINT)
        wait_until(lambda: "1 request runs and has up to 5 s" in served.text)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        assert process.group(service) == []
        assert call.answer().status == 0
    assert "mes: ended before all requests were answered" in served.text


def test_a_service_that_is_not_used_stops_without_a_limit(serve):
    with serve() as served:
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
    assert "mes: stopping; no request runs\nmes: stopped\n" in served.text
