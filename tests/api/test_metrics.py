"""Tests of GET /metrics: the metrics of requests, who may read them, and their formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from mes.app import create_app
from mes.config import settings
from mes.errors import GenerationTimeout
from tests.api.conftest import KEY
from tests.fakes import FakeRuntime

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def samples(client: FlaskClient) -> Any:
    """Return a function that scrapes the samples of one name.

    It returns their values by their labels, which are texts like `name=value`.
    """

    def scrape(name: str) -> dict[frozenset[str], float]:
        text = client.get("/metrics", headers={"X-API-Key": KEY}).text
        return {
            frozenset(f"{label}={value}" for label, value in sample.labels.items()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    return scrape


def total(samples: dict[frozenset[str], float], *labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    return sum(value for found, value in samples.items() if found >= set(labels))


def test_metrics_need_a_key(client):
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_metrics_need_no_key_if_they_are_open(tmp_path, catalog_path):
    environment = {
        "METRICS_OPEN": "true",
        "MES_API_KEY": KEY,
        "MODELS_CONFIG_PATH": str(catalog_path),
        "STATE_DIR": str(tmp_path / "state"),
    }
    app = create_app(settings.load(environment, dotenv=None), runtime=FakeRuntime())
    assert app.test_client().get("/metrics").status_code == 200
    assert app.test_client().get("/v1/status").status_code == 401
    app.extensions["mes"].close()


def test_openmetrics_is_returned_to_clients_that_accept_it(client):
    plain = client.get("/metrics", headers={"X-API-Key": KEY})
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    newer = client.get("/metrics", headers={"X-API-Key": KEY, "Accept": OPENMETRICS})
    assert newer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in openmetrics_families(newer.text)} >= {"mes_runtime_up"}


def test_an_answer_is_counted_with_its_tokens_and_times(ask, samples):
    for _ in range(3):
        assert ask().status_code == 200
    model = "gen_ai_request_model=smollm2:135m"
    assert total(samples("gen_ai_server_request_duration_seconds_count"), model) == 3
    assert total(samples("gen_ai_server_time_to_first_token_seconds_count"), model) == 3
    # The fake runtime generates 5 tokens in 50 ms.
    assert total(samples("gen_ai_server_time_per_output_token_seconds_sum"), model) == 0.03
    usage = samples("gen_ai_client_token_usage_sum")
    assert total(usage, model, "gen_ai_token_type=input") == 30
    assert total(usage, model, "gen_ai_token_type=output") == 15
    assert samples("mes_queue_wait_seconds_count") == {frozenset({"model=smollm2:135m"}): 3}


def test_a_value_on_a_bound_falls_into_the_bucket_of_that_bound(ask, samples):
    ask()
    buckets = samples("gen_ai_server_time_per_output_token_seconds_bucket")
    assert total(buckets, "le=0.01") == 1  # 50 ms for 5 tokens


def test_an_error_is_counted_by_its_code(ask, samples, runtime):
    runtime.answers = lambda prompt: GenerationTimeout("too slow")
    ask()
    code = "error_type=generation_timeout"
    assert total(samples("gen_ai_server_request_duration_seconds_count"), code) == 1
    error = {"code=generation_timeout", "model=smollm2:135m"}
    assert samples("mes_errors_total")[frozenset(error)] == 1
    assert samples("gen_ai_client_token_usage_count") == {}


def test_the_errors_of_every_model_are_exported_before_the_first(samples):
    errors = samples("mes_errors_total")
    assert errors[frozenset({"code=queue_full", "model=org/prose:q4"})] == 0


def test_verdicts_are_counted(ask, samples, runtime):
    schema = {"type": "object"}
    for text in ("{}", "{}", "no JSON"):
        runtime.answers = lambda prompt, text=text: text
        ask(json_schema=schema)
    answers = samples("mes_structured_answers_total")
    assert total(answers, "model=smollm2:135m", "verdict=valid") == 2
    assert total(answers, "model=smollm2:135m", "verdict=not_json") == 1
    assert total(samples("mes_structured_attempts_count")) == 3


def test_names_made_up_by_clients_become_no_label(client, ask, samples):
    for number in range(5):
        ask(model_id=f"made-up:{number}")
        client.get(f"/made/up/{number}")
        client.open("/health", method=f"MADEUP{number}")
        client.get(f"/v1/models/made-up:{number}", headers={"X-API-Key": KEY})
    (labels, count), *more = samples("gen_ai_server_request_duration_seconds_count").items()
    assert labels >= {"gen_ai_request_model=other", "error_type=model_not_found"}
    assert (count, more) == (5, [])
    requests = samples("http_server_request_duration_seconds_count")
    assert total(requests, "http_route=other", "http_response_status_code=404") == 5
    assert total(requests, "http_request_method=other") == 5
    assert total(requests, "http_route=/v1/models/<path:model_id>") == 5
    assert not any("made" in label for labels in requests for label in labels)


def test_another_spelling_of_a_model_is_counted_as_that_model(ask, samples):
    ask(model_id="SmolLM2:135M")
    model = "gen_ai_request_model=smollm2:135m"
    assert total(samples("gen_ai_server_request_duration_seconds_count"), model) == 1


def test_requests_are_served_if_they_cannot_be_counted_and_that_is_logged_once(
    app, client, ask, samples, caplog
):
    ask()
    (path,) = app.extensions["mes"].settings.state_dir.glob("metrics-*.counts")
    path.unlink()
    path.mkdir()
    assert [ask().status_code for _ in range(3)] == [200] * 3
    assert samples("mes_runtime_up") == {frozenset(): 1}
    assert [each.message for each in caplog.records].count("metrics_write_failed") == 1
    path.rmdir()
    ask()
    model = "gen_ai_request_model=smollm2:135m"
    assert total(samples("gen_ai_server_request_duration_seconds_count"), model) == 1


def test_loads_and_evictions_are_those_of_the_shared_state(client, ask, samples):
    ask()
    headers = {"X-API-Key": KEY}
    loaded = samples("mes_model_loaded")[frozenset({"model=smollm2:135m"})]
    client.post("/v1/models/smollm2:135m/unload", headers=headers)
    status = json.loads(client.get("/v1/status", headers=headers).text)
    statistics = {model["id"]: model for model in status["models"]}["smollm2:135m"]
    model = frozenset({"model=smollm2:135m"})
    assert (loaded, samples("mes_model_loaded")[model]) == (1, 0)
    assert samples("mes_model_loads_total")[model] == statistics["loads"] == 1
    assert samples("mes_model_evictions_total")[model] == statistics["evictions"] == 1
