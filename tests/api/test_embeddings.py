"""`POST /v1/embeddings`, over a fake runtime."""

from __future__ import annotations

import base64
import json
import logging
import struct
from typing import Any

import pytest

from mes import errors
from tests.api.conftest import KEY
from tests.fakes import eventually

MODEL = "all-minilm"


@pytest.fixture(autouse=True)
def _capabilities(app, client) -> None:
    """Wait until the capabilities of the models are known."""
    runtime_status = app.extensions["mes"].runtime_status
    eventually(lambda: runtime_status.current().pulled["all-minilm:latest"].capabilities)


@pytest.fixture
def embed(client) -> Any:
    """Post texts with the key; `fields` are those of the request."""

    def post(input: Any = "The sky is blue.", **fields: Any) -> Any:
        document = {"model": MODEL, "input": input, **fields}
        return client.post("/v1/embeddings", json=document, headers={"X-API-Key": KEY})

    return post


def test_a_response_is_in_openais_format_with_fields_of_mes(embed, runtime):
    answer = embed(["one", "two"]).get_json()
    facts = answer.pop("mes")
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": [0.6, -0.8, 0.0]}
            for index in (0, 1)
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    assert runtime.texts == ["one", "two"]
    assert facts["timings"]["cold_start"] is True
    assert facts["timings"]["total_ms"] >= facts["timings"]["embedding_ms"]
    assert facts["provenance"]["model_digest"].startswith("sha256:")
    assert facts["provenance"]["options"] == {"num_ctx": 512}


def test_one_text_needs_no_list(embed, runtime):
    assert len(embed("alone").get_json()["data"]) == 1
    assert runtime.texts == ["alone"]


def test_base64_is_float32_in_little_endian_order(embed):
    (item,) = embed(encoding_format="base64").get_json()["data"]
    numbers = struct.unpack("<3f", base64.b64decode(item["embedding"]))
    assert numbers == pytest.approx((0.6, -0.8, 0.0))


def test_dimensions_reach_the_runtime(embed):
    (item,) = embed(dimensions=2).get_json()["data"]
    assert item["embedding"] == [0.6, -0.8]


def test_null_counts_as_absent(embed):
    assert embed(encoding_format=None, dimensions=None, user=None).status_code == 200


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"input": ""}, "/input", "must not be empty"),
        ({"input": []}, "/input", "1 to 2048 texts; this list has 0"),
        ({"input": ["x"] * 2049}, "/input", "1 to 2048 texts; this list has 2049"),
        ({"input": ["x", ""]}, "/input/1", "must not be empty"),
        ({"input": ["x", None]}, "/input/1", "must be a string"),
        ({"input": [1, 2]}, "/input", "token arrays are not supported"),
        ({"input": [[1, 2], [3]]}, "/input", "token arrays are not supported"),
        ({"input": 7}, "/input", "a string or a list of strings"),
        ({"input": None}, "/input", "must not be null"),
        ({"encoding_format": "hex"}, "/encoding_format", "float or base64"),
        ({"dimensions": 0}, "/dimensions", "between 1 and"),
        ({"dimensions": "2"}, "/dimensions", "whole number"),
        ({"n": 2}, "/n", "not supported"),
        ({"model": ""}, "/model", "must not be empty"),
    ],
)
def test_a_mistake_is_named_with_its_field(embed, runtime, fields, pointer, words):
    response = embed(**fields)
    (mistake,) = response.get_json()["error"]["errors"]
    assert response.status_code == 400
    assert mistake["pointer"] == pointer
    assert words in mistake["detail"]
    assert runtime.texts == []


def test_a_model_that_makes_no_embeddings_is_refused_before_anything_is_loaded(embed, runtime):
    error = embed(model="smollm2:135m").get_json()["error"]
    assert (error["code"], error["param"]) == ("request_invalid", "model")
    assert "smollm2:135m makes no embeddings" in error["message"]
    assert not runtime.loads


def test_a_model_that_makes_no_text_is_refused_before_anything_is_loaded(ask, runtime):
    problem = ask(model_id=MODEL).get_json()
    assert problem["code"] == "request_invalid"
    assert problem["errors"][0]["pointer"] == "/model_id"
    assert "/v1/embeddings" in problem["detail"]
    assert not runtime.loads


def test_a_model_with_unknown_capabilities_is_tried(embed):
    assert embed(model="absent:1b").status_code == 200


def test_a_model_that_is_not_configured_is_404(embed):
    response = embed(model="text-embedding-3-small")
    assert response.status_code == 404
    assert response.get_json()["error"]["code"] == "model_not_found"


def test_errors_of_the_runtime_are_in_openais_format(embed, runtime, monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise errors.PromptTooLong("input 0 has 602 tokens")

    monkeypatch.setattr(runtime, "embed", fail)
    response = embed()
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "602 tokens" in error["message"]


def test_the_log_has_the_facts_and_none_of_the_texts(embed, caplog):
    with caplog.at_level(logging.INFO, logger="mes.requests"):
        embed(["secret", "hidden"], user="jane")
    (record,) = [each for each in caplog.records if each.message == "request"]
    assert record.operation == "embeddings"
    assert record.model == MODEL
    assert record.inputs == 2
    assert record.usage == {"prompt_tokens": 8, "total_tokens": 8}
    assert {"queue_ms", "load_ms", "total_ms"} <= set(record.timings)
    written = json.dumps(vars(record), default=str)
    assert not any(word in written for word in ("secret", "hidden", "jane"))


def test_it_is_counted_as_an_embeddings_operation(embed, client):
    embed()
    text = client.get("/metrics", headers={"X-API-Key": KEY}).text
    lines = [line for line in text.splitlines() if 'operation_name="embeddings"' in line]
    counted = {line.partition("_count{")[0] for line in lines if "_count{" in line}
    assert counted == {"gen_ai_server_request_duration_seconds", "gen_ai_client_token_usage"}
    assert all(f'gen_ai_request_model="{MODEL}"' in line for line in lines)


def test_it_needs_a_key(client):
    assert client.post("/v1/embeddings", json={"model": MODEL, "input": "x"}).status_code == 401
