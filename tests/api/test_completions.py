"""`POST /v1/completions` over a fake runtime."""

from __future__ import annotations

import pytest

from mes.api.openai.completion_logprobs import CompletionLogprobs, TextTokens
from mes.api.openapi.docs_page import document_of
from mes.domain import Logprob
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
    assert first["choices"][0]["logprobs"]["top_logprobs"] == [{"Paris,": -0.25}]


def test_offsets_count_from_the_beginning_of_the_answer_also_in_a_stream(complete, runtime):
    runtime.answers = lambda prompt: "Paris, \U0001f680 of course"
    whole = complete(logprobs=1).get_json()["choices"][0]["logprobs"]
    assert whole["text_offset"] == [0, 6, 8, 11]
    *chunks, last = events(complete(logprobs=1, stream=True))
    in_chunks = [each["choices"][0]["logprobs"] for each in chunks]
    for name, values in whole.items():
        assert [value for chunk in in_chunks for value in chunk[name]] == values
    assert last["choices"][0]["logprobs"] is None


def test_each_choice_of_a_stream_has_offsets_of_its_own(complete, runtime):
    runtime.answers = lambda prompt: "Paris, of course"
    offsets = {0: [], 1: []}
    for chunk in events(complete(logprobs=1, n=2, stream=True)):
        (choice,) = chunk["choices"]
        offsets[choice["index"]] += (choice["logprobs"] or {"text_offset": []})["text_offset"]
    assert offsets == {0: [0, 6, 9], 1: [0, 6, 9]}


def test_a_part_of_a_letter_is_a_token_where_its_letter_begins():
    parts = [b" a", b"\xf0\x9f", b"\x9a", b"\x80", b"."]
    likely = Logprob("\ufffd", -3.0, (0x91,))
    logprobs = [
        Logprob(part.decode(errors="replace"), -0.5, tuple(part), (likely,)) for part in parts
    ]
    made = CompletionLogprobs.serialize(TextTokens("a\U0001f680.", logprobs, start=10))
    assert made["tokens"] == [" a", "bytes:\\xf0\\x9f", "bytes:\\x9a", "bytes:\\x80", "."]
    assert made["text_offset"] == [10, 11, 11, 11, 12]  # the space was removed from the answer
    assert made["top_logprobs"][2] == {"bytes:\\x91": -3.0, "bytes:\\x9a": -0.5}


def test_offsets_are_right_if_a_stop_ends_the_answer_inside_a_token():
    logprobs = [Logprob(part, -0.5, tuple(part.encode())) for part in ("The", " end")]
    made = CompletionLogprobs.serialize(TextTokens("The ", logprobs))
    assert made["text_offset"] == [0, 3]


def test_the_probabilities_of_an_empty_answer_are_empty_lists(complete, runtime):
    runtime.answers = lambda prompt: ""
    empty = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    assert complete(logprobs=1).get_json()["choices"][0]["logprobs"] == empty
    (last,) = events(complete(logprobs=1, stream=True))
    assert last["choices"][0]["logprobs"] == empty
    assert complete().get_json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
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
