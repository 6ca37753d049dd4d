"""The application in this process, over a fake runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mes.app import create_app
from mes.config import settings
from mes.domain import PulledModel
from tests.fakes import DIGEST, FakeRuntime, eventually
from tests.support.contract import watch_responses

KEY = "a-key-for-tests"
MODELS = {
    "smollm2:135m": {"display_name": "SmolLM2", "context_window": 4096, "size_gb": 0.1},
    "org/prose:q4": {"supports_json_mode": False, "default_temperature": 0.2, "max_attempts": 3},
    "absent:1b": {},
    "off:1b": {"enabled": False},
    "all-minilm": {"context_window": 512},
}


@pytest.fixture
def runtime() -> FakeRuntime:
    fake = FakeRuntime()
    fake.embedders = {"all-minilm:latest"}
    names = ("smollm2:135m", "org/prose:q4", "all-minilm:latest")
    fake.on_disk = [PulledModel(name, DIGEST, 10, "Q4_0", "135M") for name in names]
    return fake


@pytest.fixture
def catalog_path(tmp_path: Path) -> Path:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": MODELS, "defaults": {"max_tokens": 77}}))
    return path


@pytest.fixture
def app(tmp_path: Path, runtime: FakeRuntime, catalog_path: Path) -> Iterator[Flask]:
    environment = {
        "MES_API_KEY": KEY,
        "MODELS_CONFIG_PATH": str(catalog_path),
        "STATE_DIR": str(tmp_path / "state"),
        "MAX_BODY_BYTES": "20000",
        "QUEUE_TIMEOUT": "5",
    }
    app = create_app(settings.load(environment, dotenv=None), runtime=runtime)
    violations = watch_responses(app)
    yield app
    app.extensions["mes"].close()
    assert violations == [], "a response that /openapi.json does not document"


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    eventually(lambda: app.extensions["mes"].runtime_status.current().seen_at)
    return app.test_client()


@pytest.fixture
def ask(client: FlaskClient) -> Any:
    """Post an inference with the key; `fields` are added to a default prompt."""

    def post(**fields: Any) -> Any:
        document = {"model_id": "smollm2:135m", "prompt": "The capital of France?", **fields}
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        # Not json=: Flask's client would sort the keys, and their order is tested.
        return client.post("/v1/inference", data=json.dumps(document), headers=headers)

    return post


@pytest.fixture
def answer_with(runtime):
    """Let the runtime answer with these texts, one after the other."""

    def script(*answers):
        left = list(answers)
        runtime.answers = lambda prompt: left.pop(0)

    return script
