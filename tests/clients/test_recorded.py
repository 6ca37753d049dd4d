"""Every recorded request of a client is answered, also of those that `make test` does not install.

The application runs in this process over a fake runtime, whose answers fit a schema if the request
has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mes.app import create_app
from mes.config import settings
from mes.domain import Prompt, PulledModel, ToolCall
from tests.clients import recorded_requests
from tests.fakes import DIGEST, FakeRuntime, eventually
from tests.support.contract import watch_responses
from tests.support.fake_ollama.responses import sample

KEY = "a-key-for-tests"
WITH_TOOLS = "llama3.1:8b"
MODELS = ("smollm2:135m", WITH_TOOLS, "all-minilm")
CASES = [
    pytest.param(request, id=f"{name}-{number}")
    for name in recorded_requests.names()
    for number, request in enumerate(recorded_requests.read(name))
]


class FittingRuntime(FakeRuntime):
    """Its answers fit the schema; it calls the first function that it is offered, if it has to."""

    def __init__(self) -> None:
        super().__init__()
        self.embedders = {"all-minilm:latest"}
        self.on_disk = [
            PulledModel(name if ":" in name else f"{name}:latest", DIGEST, 10, "Q4_0", "1B")
            for name in MODELS
        ]
        self.answers = fitting_text


def fitting_text(prompt: Prompt) -> str:
    return json.dumps(sample(prompt.format)) if isinstance(prompt.format, dict) else "Paris"


@pytest.fixture(scope="module")
def runtime() -> FakeRuntime:
    return FittingRuntime()


@pytest.fixture(scope="module")
def client(runtime: FakeRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    folder: Path = tmp_path_factory.mktemp("recorded")
    catalog = folder / "models.json"
    catalog.write_text(json.dumps({"models": {name: {} for name in MODELS}, "defaults": {}}))
    environment = {
        "MES_API_KEY": KEY,
        "MODELS_CONFIG_PATH": str(catalog),
        "STATE_DIR": str(folder / "state"),
    }
    app = create_app(settings.load(environment, dotenv=None), runtime=runtime)
    violations = watch_responses(app)
    eventually(lambda: app.extensions["mes"].runtime_status.current().seen_at)
    yield app.test_client()
    app.extensions["mes"].close()
    assert violations == [], "a response that /openapi.json does not document"


@pytest.mark.parametrize("recorded", CASES)
def test_a_recorded_request_is_answered(client, runtime, recorded):
    body = recorded["body"]
    runtime.tool_calls = calls_of(body)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    response = client.post(recorded["path"], data=json.dumps(body), headers=headers)
    assert response.status_code == 200, response.get_data(as_text=True)
    if recorded["path"] == "/v1/embeddings":
        assert response.get_json()["data"]
    elif body.get("stream"):
        assert_stream(body, response.get_data(as_text=True))
    else:
        assert_answer(body, response.get_json())


def calls_of(body: dict[str, Any]) -> tuple[ToolCall, ...]:
    """Return the calls of a model that has to call one of the functions it is offered."""
    if body.get("tool_choice") not in ("required", "any"):
        return ()
    function = body["tools"][0]["function"]
    return (ToolCall("call_1", function["name"], sample(function["parameters"])),)


def assert_answer(body: dict[str, Any], answer: dict[str, Any]) -> None:
    prompts = body.get("prompt")
    expected = body.get("n") or 1
    expected *= len(prompts) if isinstance(prompts, list) else 1
    assert [choice["index"] for choice in answer["choices"]] == list(range(expected))
    for choice in answer["choices"]:
        assert_message(body, choice["text"] if "text" in choice else choice["message"])


def assert_message(body: dict[str, Any], message: dict[str, Any] | str) -> None:
    if isinstance(message, str):
        assert message == "Paris"
    elif body.get("tool_choice", "auto") not in ("auto", "none"):
        (call,) = message["tool_calls"]
        names = [tool["function"]["name"] for tool in body["tools"]]
        assert call["function"]["name"] in names
    else:
        assert message["content"] == expected_text(body)


def expected_text(body: dict[str, Any]) -> str:
    format_ = body.get("response_format") or {}
    if format_.get("type") == "json_schema":
        return json.dumps(sample(format_["json_schema"]["schema"]))
    return "{}" if format_.get("type") == "json_object" else "Paris"


def assert_stream(body: dict[str, Any], text: str) -> None:
    *lines, done, _ = text.split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    pieces = [each["text"] if "text" in each else each["delta"].get("content") for each in choices]
    assert "".join(piece or "" for piece in pieces) == expected_text(body)
    options = body.get("stream_options") or {}
    if options.get("include_usage"):
        assert chunks[-1]["usage"]["completion_tokens"] > 0
    if options.get("continuous_usage_stats"):
        assert all(chunk["usage"] for chunk in chunks)
