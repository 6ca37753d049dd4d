"""A client written for the original service works unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.service import KEY

LLAMA, MISTRAL, OFF = "llama3.1:8b", "mistral:7b", "gemma:2b"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}

pytestmark = pytest.mark.usefixtures("clean")


class OriginalClient:
    """Calls the service as the backend of the benchmark platform does, field by field."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"}

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", headers=self.headers, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: Any = None) -> Any:
        answer = requests.post(f"{self.url}{path}", json=body, headers=self.headers, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def infer(self, model_id: str, prompt: str, **options: Any) -> tuple[str, int, int]:
        result = self._post("/v1/inference", {"model_id": model_id, "prompt": prompt, **options})
        if not result["success"]:
            raise RuntimeError(result["error"])
        return result["output"], result["usage"]["total_tokens"], result["latency_ms"]

    def models(self) -> Any:
        return self._get("/v1/models")["models"]

    def status(self) -> Any:
        return self._get("/v1/status")

    def load(self, model_id: str) -> Any:
        return self._post(f"/v1/models/{model_id}/load")

    def unload(self, model_id: str) -> Any:
        return self._post(f"/v1/models/{model_id}/unload")


@pytest.fixture(scope="module")
def service(start):
    models = {LLAMA: {"display_name": "Llama 3.1 8B", "size_gb": 4.9, "context_window": 8192}}
    return start(models={**models, MISTRAL: {}, OFF: {"enabled": False}})


@pytest.fixture
def client(service):
    return OriginalClient(service.url, KEY)


def error_response(call, *arguments):
    with pytest.raises(requests.HTTPError) as error:
        call(*arguments)
    return error.value.response


def test_an_inference_has_output_usage_and_latency(client, runtime):
    runtime.control(reply="The capital is Paris.")
    output, tokens, latency_ms = client.infer(
        LLAMA, "What is the capital?", temperature=0.2, max_tokens=50, system_prompt="Be brief."
    )
    assert output == "The capital is Paris."
    assert tokens > 4
    assert latency_ms >= 0


def test_structured_output_is_text_that_fits_the_schema(client):
    output, _, _ = client.infer(LLAMA, "Who?", json_schema=SCHEMA)
    assert output == '{"name": "word", "age": 7}'


def test_success_and_error_show_that_an_answer_breaks_its_schema(client, runtime):
    runtime.control(reply='{"name": "John"}')
    with pytest.raises(RuntimeError, match="age"):
        client.infer(LLAMA, "Who?", json_schema=SCHEMA)


def test_a_wrong_key_is_401(service):
    refused = error_response(OriginalClient(service.url, "wrong").models)
    assert refused.status_code == 401
    assert refused.json()["success"] is False
    assert refused.json()["error"]


@pytest.mark.parametrize("model_id", ["unknown:1b", OFF])
def test_a_model_that_cannot_be_run_is_404(client, model_id):
    refused = error_response(client.infer, model_id, "Hello")
    assert refused.status_code == 404
    assert model_id in refused.json()["error"]


def test_models_lists_what_is_configured(client):
    models = {model["id"]: model for model in client.models()}
    assert set(models) == {LLAMA, MISTRAL, OFF}
    fields = ("name", "size_gb", "context_window", "supports_json")
    assert [models[LLAMA][name] for name in fields] == ["Llama 3.1 8B", 4.9, 8192, True]
    assert models[OFF]["status"] == "disabled"


def test_load_and_unload_show_in_the_status(client):
    assert client.load(LLAMA) == {
        "success": True,
        "message": f"{LLAMA} is loaded",
        "model_id": LLAMA,
    }
    status = client.status()
    assert status["ollama_running"] is True
    assert LLAMA in status["models_loaded"]
    assert status["memory_available_gb"] > 0
    assert status["gpu_available"] in (True, False)
    assert client.unload(LLAMA)["success"] is True
    assert LLAMA not in client.status()["models_loaded"]


def test_health_needs_no_key(service):
    health = requests.get(f"{service.url}/health", timeout=5).json()
    assert health["status"] == "healthy"
    assert {"timestamp", "version"} <= set(health)
