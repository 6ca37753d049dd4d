"""Tests of the image built from the Dockerfile: it serves, as an unprivileged user."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import requests

from tests.support import container, process
from tests.support.process import ROOT, free_port, wait_until

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HEALTH, COMMAND = (json.loads(words) for words in re.findall(r"CMD (\[.*\])$", DOCKERFILE, re.M))
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.M)[0])
SERVE = [*ENTRYPOINT, *COMMAND]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if reason := container.why_not():
        pytest.skip(reason)
    return container.Image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def port():
    number = free_port()
    yield number
    # The state directory of the image; a real container does not share /dev/shm.
    shutil.rmtree(f"/dev/shm/mes-10001-{number}", ignore_errors=True)


def test_it_serves_and_its_health_check_succeeds(image, fake_ollama, tmp_path, port):
    environ = {"MES_API_KEY": "own", "PORT": port, "OLLAMA_HOST": fake_ollama.url}
    assert not image.succeeds(*HEALTH, PORT=port)
    running = image.start(*SERVE, output=tmp_path / "output", **environ)
    wait_until(lambda: image.succeeds(*HEALTH, PORT=port), seconds=60, why=tmp_path / "output")
    answer = requests.post(
        f"http://127.0.0.1:{port}/v1/inference",
        json={"model_id": "mistral:7b", "prompt": "Hello"},
        headers={"X-API-Key": "own"},
        timeout=30,
    )
    assert answer.json()["success"]
    process.kill(running)


def test_it_creates_a_key_at_its_first_start(image, fake_ollama, tmp_path, port):
    environ = {"PORT": port, "OLLAMA_HOST": fake_ollama.url}
    running = image.start(*SERVE, output=tmp_path / "output", **environ)
    wait_until(lambda: image.succeeds(*HEALTH, PORT=port), seconds=60, why=tmp_path / "output")
    # With the key in the volume, as in `docker compose exec mes mes models`.
    assert image.succeeds("mes", "models", PORT=port)
    assert not image.succeeds("mes", "models", PORT=port, MES_API_KEY="another")
    assert image.succeeds("mes", "key", "new", "--name", "bench")
    process.kill(running)


def test_it_does_not_start_with_the_development_key(image, port):
    assert not image.succeeds(*COMMAND, PORT=port, MES_API_KEY="mes-dev-key-123")


def test_it_runs_unprivileged_and_cannot_change_its_files(image):
    assert image.succeeds("sh", "-c", "[ $(id -u) = 10001 ]")
    assert not image.succeeds("touch", "/app/wsgi.py")
    assert not image.succeeds("touch", "/opt/mes/new")


def test_it_contains_no_build_tools(image):
    for tool in ("pip", "gcc", "make", "curl"):
        assert not image.succeeds("sh", "-c", f"command -v {tool}"), tool
    assert not image.succeeds("python", "-c", "import pip")


def test_it_contains_only_the_files_of_the_service(image):
    found = "find /app -type f | sort | tr '\\n' ' '"
    expected = "/app/config/models.json /app/gunicorn.conf.py /app/wsgi.py "
    assert image.succeeds("sh", "-c", f'[ "$({found})" = "{expected}" ]')
