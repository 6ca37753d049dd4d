"""Keys, request ids, health, queue positions and models, over a fake runtime."""

from __future__ import annotations

import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import pytest

from mes import errors
from mes.api import problems
from mes.domain import normalise
from mes.server.request_kinds import RequestKind, kind_of
from tests.api.conftest import KEY
from tests.fakes import ALL_BUT_EMBEDDING, eventually

BEARER = {"Authorization": f"Bearer {KEY}"}
WRONG = {"Authorization": "Bearer wrong"}


def test_health_needs_no_key(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "healthy"
    assert set(answer.get_json()) == {"status", "timestamp", "version"}


def test_ready_names_the_check_that_fails(client, runtime, app):
    assert client.get("/ready").get_json()["status"] == "ready"
    runtime.down = errors.RuntimeUnavailable("http://ollama:11434 cannot be reached")
    eventually(lambda: client.get("/ready").status_code == 503)
    assert client.get("/ready", headers=BEARER).get_json() == {
        "status": "not_ready",
        "service": "ok",
        "runtime": "http://ollama:11434 cannot be reached",
        "catalog": "ok",
        "state": "ok",
        "memory": "ok",
        "runtime_places": "ok",
    }
    runtime.down = None
    eventually(lambda: client.get("/ready").status_code == 200)


def test_ready_tells_clients_without_a_key_no_address_and_no_path(client, runtime, catalog_path):
    runtime.down = errors.RuntimeUnavailable("http://ollama:11434 cannot be reached")
    catalog_path.write_text("{")
    eventually(lambda: "http" in client.get("/ready", headers=BEARER).get_json()["runtime"])
    eventually(lambda: str(catalog_path) in client.get("/ready", headers=BEARER).text)
    without = client.get("/ready")
    assert without.status_code == 503
    assert without.get_json() == {
        "status": "not_ready",
        "service": "ok",
        "runtime": "the runtime cannot be used; send an API key for the reason",
        "catalog": "the latest edit of the catalog is invalid; send an API key for the reason",
        "state": "ok",
        "memory": "ok",
        "runtime_places": "ok",
    }


def test_many_wrong_keys_change_nothing_in_ready(client, runtime):
    assert {client.get("/ready", headers=WRONG).status_code for _ in range(12)} == {200}
    runtime.down = errors.RuntimeUnavailable("http://ollama:11434 cannot be reached")
    eventually(lambda: client.get("/ready").status_code == 503)
    answers = [client.get("/ready", headers=WRONG) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {503}
    assert not any("11434" in answer.text for answer in answers)
    # They were counted all the same, so that /ready is no place to guess keys without a limit.
    assert client.get("/v1/models", headers=WRONG).status_code == 429


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}, Bearer {KEY}"},
        {"Authorization": "Bearer wrong", "X-API-Key": KEY},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": "ключ".encode().decode("latin-1")},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/status", "/v1/models/smollm2:135m"])
def test_without_the_right_key_a_request_is_unauthorized(client, path, headers):
    response = client.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="MES"'
    assert response.get_json()["code"] == "unauthorized"


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"X-API-Key": KEY},
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER   {KEY} "},
    ],
)
def test_the_key_is_accepted_in_either_header(client, headers):
    assert client.get("/v1/models", headers=headers).status_code == 200
    # The server finds the same key, or it would serve an inference with the few threads for
    # requests without a key.
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"GET /v1/models HTTP/1.1\r\n{lines}\r\n".encode()
    assert kind_of(head, lambda key: key == KEY) is RequestKind.WITH_KEY


def test_models_are_listed_for_both_kinds_of_client(client):
    listed = client.get("/v1/models", headers=BEARER).get_json()
    assert listed["object"] == "list"
    assert listed["data"][0] == {
        "id": "smollm2:135m",
        "object": "model",
        "created": 0,
        "owned_by": "mes",
        "capabilities": list(ALL_BUT_EMBEDDING),
    }
    embedders = [
        each["id"] for each in listed["data"] if "embedding" in (each["capabilities"] or ())
    ]
    assert embedders == ["all-minilm"]
    by_id = {model["id"]: model for model in listed["models"]}
    assert (
        by_id["smollm2:135m"]
        | {
            "name": "SmolLM2",
            "status": "available",
            "size_gb": 0.1,
            "context_window": 4096,
            "supports_json": True,
            "loaded": False,
            "in_flight": 0,
            "queued": 0,
            "max_concurrent": 1,
            "pinned": False,
        }
        == by_id["smollm2:135m"]
    )
    assert by_id["all-minilm"]["capabilities"] == ["embedding"]
    assert by_id["absent:1b"]["capabilities"] is None
    assert by_id["absent:1b"]["status"] == "not_pulled"
    assert by_id["off:1b"]["status"] == "disabled"


@pytest.mark.parametrize("spelling", ["smollm2:135m", "SmolLM2:135M", "library/smollm2:135m"])
def test_a_model_is_found_under_any_spelling_that_ollama_knows(client, spelling):
    shown = client.get(f"/v1/models/{spelling}", headers=BEARER).get_json()
    assert shown["id"] == "smollm2:135m"
    assert shown["digest"].startswith("sha256:")
    assert (shown["quantization"], shown["parameter_size"]) == ("Q4_0", "1B")
    assert shown["capabilities"] == list(ALL_BUT_EMBEDDING)
    assert (shown["object"], shown["created"], shown["owned_by"]) == ("model", 0, "mes")


def test_ids_with_slashes_and_colons_load_and_unload(client, runtime):
    loaded = client.post("/v1/models/org/prose:q4/load", headers=BEARER)
    assert loaded.get_json() == {
        "success": True,
        "message": "org/prose:q4 is loaded",
        "model_id": "org/prose:q4",
    }
    assert runtime.in_memory == ["org/prose:q4"]
    models = client.get("/v1/models", headers=BEARER).get_json()["models"]
    assert next(m for m in models if m["id"] == "org/prose:q4")["status"] == "ready"
    unloaded = client.post("/v1/models/org%2Fprose%3Aq4/unload", headers=BEARER).get_json()
    assert unloaded["success"] is True
    assert runtime.in_memory == []


def test_status_reports_the_runtime_and_its_models(client, runtime):
    client.post("/v1/models/smollm2:135m/load", headers=BEARER)
    status = client.get("/v1/status", headers=BEARER).get_json()
    assert status["ollama_running"] is True
    assert status["models_loaded"] == ["smollm2:135m"]
    assert status["memory_available_gb"] > 0
    assert status["gpu_available"] in (True, False)
    assert status["models"][0]["status"] == "ready"


def test_a_model_unloaded_by_another_client_is_noticed(client, runtime):
    client.post("/v1/models/smollm2:135m/load", headers=BEARER)
    runtime.in_memory.clear()

    def loaded():
        return client.get("/v1/status", headers=BEARER).get_json()["models_loaded"]

    eventually(lambda: loaded() == [])


def test_a_model_loaded_by_another_client_is_noticed(client, runtime):
    runtime.in_memory.append(normalise("smollm2:135m"))

    def loaded():
        return client.get("/v1/status", headers=BEARER).get_json()["models_loaded"]

    eventually(lambda: loaded() == ["smollm2:135m"])


def test_untracked_models_over_the_limit_are_unloaded(client, runtime):
    runtime.in_memory += ["x:1", "y:1", "z:1"]
    eventually(lambda: runtime.in_memory == [])


def test_a_safe_request_id_is_returned_and_an_unsafe_one_is_replaced(client):
    kept = client.get("/health", headers={"X-Request-ID": "run-7.prompt_12"})
    assert kept.headers["X-Request-ID"] == "run-7.prompt_12"
    for unsafe in ("a b", "x" * 200, "<script>", "ä".encode().decode("latin-1")):
        replaced = client.get("/health", headers={"X-Request-ID": unsafe})
        assert replaced.headers["X-Request-ID"] != unsafe


def test_the_request_id_is_in_the_body_of_every_error(client):
    response = client.get("/nowhere", headers={"X-Request-ID": "run-7"})
    assert (response.status_code, response.get_json()["code"]) == (404, "not_found")
    assert response.get_json()["request_id"] == "run-7"


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/v1/chat/completions", "/v1/completions/", "/v1/", "/v1"]
)
def test_an_unknown_path_of_the_api_is_an_error_of_openai_that_names_the_paths(client, path):
    response = client.post(path, json={})
    error = response.get_json()["error"]
    assert (response.status_code, response.mimetype) == (404, "application/json")
    assert (error["type"], error["code"]) == ("not_found_error", "not_found")
    for known in ("/v1/chat/completions", "/v1/embeddings", "/v1/models/{model_id}/load"):
        assert known in error["message"]
    assert ("did you mean" in error["message"]) is ("completions" in path)
    assert error["message"].startswith(f"there is no {path};")
    assert response.headers["X-Should-Retry"] == "false"


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/v1/chat/completion", "/v1/chat/completions"), ("/v1/embedding", "/v1/embeddings")],
)
def test_a_misspelt_path_is_answered_with_the_path_that_may_be_meant(client, path, meant):
    assert f"did you mean {meant}?" in client.post(path, json={}).get_json()["error"]["message"]


def test_an_unknown_path_elsewhere_is_a_problem_that_may_name_the_path_that_is_meant(client):
    response = client.post("/chat/completions", json={})
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert response.get_json()["detail"] == (
        "there is no /chat/completions; did you mean /v1/chat/completions? /docs lists the paths"
    )


@pytest.mark.parametrize("prefix", ["http://localhost", "https://proxy.example/mes"])
@pytest.mark.parametrize("path", ["/", "/docs/"])
def test_a_browser_is_led_to_the_documentation(client, path, prefix):
    response = client.get(path)
    assert response.status_code == 302
    assert urljoin(prefix + path, response.headers["Location"]) == f"{prefix}/docs"
    assert "/docs" in response.get_data(as_text=True)


def test_a_browser_that_asks_for_an_icon_gets_none_and_no_error(client):
    response = client.get("/favicon.ico")
    assert (response.status_code, response.get_data()) == (204, b"")


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/api/chat", "use /v1/chat/completions"),
        ("/api/generate", "use /v1/inference"),
        ("/api/embed", "use /v1/embeddings"),
        ("/api/tags", "use /v1/models"),
        ("/api/pull/", "use /v1/models/{model_id}/pull"),
        ("/api/create", "see /docs"),
        ("/api", "see /docs"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_of_ollama_is_answered_with_the_path_of_mes(client, method, path, remedy):
    response = client.open(path, method=method, json={})
    assert (response.status_code, response.get_json()["code"]) == (404, "not_found")
    detail = response.get_json()["detail"]
    assert detail.startswith(f"there is no {path}; MES does not serve Ollama's API; {remedy}")


def test_a_path_of_mes_below_api_is_answered_with_the_path_that_is_meant(client):
    detail = client.get("/api/v1/models").get_json()["detail"]
    assert detail == "there is no /api/v1/models; did you mean /v1/models? /docs lists the paths"


def test_each_path_that_is_named_for_one_of_ollama_exists(app):
    paths = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", each.rule) for each in app.url_map.iter_rules()}
    assert set(problems.OLLAMA_PATHS.values()) <= paths


def test_a_wrong_method_of_openais_api_is_an_error_of_openai(client):
    response = client.get("/v1/chat/completions")
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (405, "method_not_allowed")
    assert "GET" not in response.headers["Allow"]
    assert error["message"] == "/v1/chat/completions takes OPTIONS, POST, and not GET"


def test_a_wrong_method_is_answered_with_the_allowed_ones(client):
    response = client.delete("/health")
    assert (response.status_code, response.get_json()["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_each_request_is_one_line_in_the_log_without_prompt_answer_or_key(ask, caplog):
    caplog.set_level(logging.INFO)
    ask(prompt="a very private prompt")
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    assert len(lines) == 1
    line = vars(lines[0])
    assert (line["status"], line["model"], line["key"]) == (200, "smollm2:135m", "default")
    assert line["usage"]["total_tokens"] == 15
    assert line["timings"]["queue_ms"] == 0
    everything = str([vars(record) for record in caplog.records])
    for secret in ("private prompt", "Paris", KEY):
        assert secret not in everything


def test_the_position_of_a_waiting_request_is_found_by_its_id(app, client, ask, runtime):
    inside, go_on = threading.Event(), threading.Event()

    def answer_slowly(prompt):
        inside.set()
        go_on.wait(10)
        return "Paris"

    runtime.answers = answer_slowly
    headers = {**BEARER, "X-Request-ID": "waits", "Content-Type": "application/json"}
    body = '{"model_id": "smollm2:135m", "prompt": "?"}'
    with ThreadPoolExecutor(2) as pool:
        pool.submit(ask)
        inside.wait(5)
        second = pool.submit(
            lambda: app.test_client().post("/v1/inference", data=body, headers=headers)
        )
        eventually(lambda: client.get("/v1/queue/waits", headers=BEARER).status_code == 200)
        position = client.get("/v1/queue/waits", headers=BEARER).get_json()
        status = client.get("/v1/status", headers=BEARER).get_json()
        go_on.set()
        assert second.result().status_code == 200
    assert position["model_id"] == "smollm2:135m"
    assert position["position"] == 1
    assert [each["request_id"] for each in status["queue"]] == ["waits"]
    assert status["models"][0]["queued"] == 1
    assert status["models"][0]["oldest_wait_ms"] >= 0
    gone = client.get("/v1/queue/waits", headers=BEARER)
    assert (gone.status_code, gone.get_json()["code"]) == (404, "not_waiting")
