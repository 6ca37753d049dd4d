"""`POST /v1/completions` over a fake runtime."""

from __future__ import annotations

import pytest

from mes.api.openapi.docs_page import document_of
from tests.api.conftest import KEY
from tests.api.test_chat import events, refusal
from tests.support.contract import Contract


@pytest.fixture
def complete(client):
    def post(prompt="The capital of France is", **fields):
        document = {"model": "smollm2:135m", "prompt": prompt, **fields}
        return client.post("/v1/completions", json=document, headers={"X-API-Key": KEY})

    return post


@pytest.mark.parametrize("prompt", ["Hello", ["Hello"]])
def test_a_prompt_is_completed_in_openais_format(complete, runtime, prompt):
    answer = complete(prompt, max_tokens=5, stop="x").get_json()
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {"index": 0, "text": "Paris", "finish_reason": "stop", "logprobs": None}
    ]
    assert answer["usage"]["total_tokens"] == 15
    asked = runtime.prompts[-1]
    assert (asked.text, asked.options["num_predict"], asked.options["stop"]) == ("Hello", 5, ["x"])


def test_a_stream_has_the_same_in_chunks(app, complete, runtime):
    runtime.answers = lambda prompt: "Paris, of course"
    chunks = events(complete(stream=True, stream_options={"include_usage": True}))
    *text_chunks, last, usage = chunks
    assert [each["choices"][0]["text"] for each in text_chunks] == ["Paris,", " of", " course"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["mes"]["success"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 15)
    contract = Contract(document_of(app))
    assert [contract.violations_of("CompletionChunk", each) for each in chunks] == [[]] * 5


def test_probabilities_come_in_lists(complete, runtime):
    runtime.answers = lambda prompt: "Paris, France"
    logprobs = complete(logprobs=1).get_json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["Paris,", " France"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"Paris,": -0.25}, {" France": -0.25}],
        "text_offset": [0, 6],
    }
    first, *_ = events(complete(logprobs=0, stream=True))
    assert first["choices"][0]["logprobs"]["tokens"] == ["Paris,"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_an_unsupported_parameter_is_named(complete, fields, param):
    assert refusal(complete(**fields))["param"] == param


def test_each_chunk_has_the_tokens_so_far_if_requested(complete, runtime):
    runtime.answers = lambda prompt: "Paris, France"
    options = {"continuous_usage_stats": True}
    chunks = events(complete(stream=True, stream_options=options))
    assert [each["usage"]["completion_tokens"] for each in chunks] == [1, 2, 5]
