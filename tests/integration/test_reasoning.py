"""Reasoning before JSON, over gunicorn and a runtime that constrains as Ollama does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.service import FakeOllama, Service

MODEL = "mistral:7b"
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
QUESTION = "What is 2+2?"
MESSAGES = [{"role": "user", "content": QUESTION}]
THOUGHT = 'It is {"x": 5}, no, 4'

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start, runtime) -> Service:
    runtime.control(abilities={MODEL: ["thinking"]})
    return start(models={MODEL: {}})


def infer(service: Service, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    body = {"model_id": MODEL, "think": True, "json_schema": SCHEMA, "stream": stream, **fields}
    return last_line(service.post("/v1/inference", body).text)


def last_line(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return document


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("question", [{"prompt": QUESTION}, {"messages": MESSAGES}])
def test_a_model_reasons_and_then_answers_with_json(service, runtime, question, stream):
    runtime.control(thinking=THOUGHT)
    answer = infer(service, stream=stream, **question)

    assert (answer["success"], answer["parsed"]) == (True, {"x": 7})
    assert answer["reasoning"] == THOUGHT
    assert answer["structured"]["mode"] == "grammar"
    # `{"x": 7}` has two pieces, and the reasoning six.
    assert answer["usage"]["completion_tokens"] == 2 + 6
    assert answer["usage"]["counted_by_mes"] == 6
    sent = runtime.stats()["bodies"][-1]
    assert (sent["messages"], sent["format"], sent["think"]) == (MESSAGES, SCHEMA, True)


@pytest.mark.parametrize("stream", [False, True])
def test_so_it_does_on_the_openai_endpoint(service, runtime, stream):
    runtime.control(thinking=THOUGHT)
    schema = {"name": "sum", "schema": SCHEMA}
    body = {
        "model": MODEL,
        "messages": MESSAGES,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    text = service.post("/v1/chat/completions", body).text

    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    name = "delta" if stream else "message"
    parts = [each[name] for chunk in chunks for each in chunk["choices"]]
    assert json.loads("".join(part.get("content") or "" for part in parts)) == {"x": 7}
    assert "".join(part.get("reasoning") or "" for part in parts) == THOUGHT
    assert chunks[-1]["usage"]["completion_tokens"] == 2 + 6


def test_a_stream_has_the_reasoning_before_the_answer(service, runtime):
    runtime.control(thinking=THOUGHT)
    body = {"model_id": MODEL, "prompt": QUESTION, "think": True, "json_schema": SCHEMA}
    lines = service.post("/v1/inference", {**body, "stream": True}).text.splitlines()

    events = [event for event in map(json.loads, lines) if "text" in event]
    assert [event["type"] for event in events] == ["reasoning"] * 6 + ["token"] * 2


def test_the_system_prompt_stays_one(service, runtime):
    runtime.control(thinking=THOUGHT)
    infer(service, prompt=QUESTION, system_prompt="Be brief.")

    sent = runtime.stats()["bodies"][-1]["messages"]
    assert sent == [{"role": "system", "content": "Be brief."}, *MESSAGES]


def test_the_time_of_the_reasoning_is_part_of_the_generation(service, runtime):
    runtime.control(thinking="so " * 20, ms_per_token=10)
    timings = infer(service, prompt=QUESTION)["timings"]

    # The second run has two pieces, with one pause between them.
    assert timings["generation_ms"] >= 150


def test_reasoning_that_takes_all_tokens_leaves_no_answer(service, runtime):
    runtime.control(thinking=THOUGHT)
    answer = infer(service, prompt=QUESTION, max_tokens=4, max_attempts=1)

    assert (answer["success"], answer["code"], answer["output"]) == (False, "truncated", "")
    assert answer["usage"]["completion_tokens"] == 4
    assert "counted_by_mes" not in answer["usage"]


def test_json_that_a_runtime_takes_for_reasoning_is_no_answer(service, runtime: FakeOllama):
    """A runtime that constrains the reasoning, as Ollama does without a conversation."""
    runtime.control(thinking='{"x": 4}', reply="")
    answer = infer(service, prompt=QUESTION, max_attempts=1)

    assert (answer["success"], answer["code"], answer["parsed"]) == (False, "empty", None)
    assert answer["reasoning"] == '{"x": 4}'


def test_a_schema_that_the_second_run_refuses_goes_into_the_prompt(service, runtime):
    runtime.control(thinking=THOUGHT, reply='{"x": 7}')
    refusal = "Failed to initialize samplers: failed to parse grammar"
    fault = {"kind": "error_line", "stage": "generate", "times": 1, "after": 0, "text": refusal}
    runtime.control(faults=[fault])
    answer = infer(service, prompt=QUESTION, json_schema={**SCHEMA, "title": "A"}, max_attempts=1)

    report = answer["structured"]
    assert (report["verdict"], report["mode"], report["attempts"]) == ("valid", "json", 1)
    assert "JSON Schema" in runtime.stats()["bodies"][-1]["messages"][-1]["content"]


def test_a_model_that_does_not_reason_gets_the_schema_in_its_second_prompt(service, runtime):
    runtime.control(models={MODEL: {"reply": ["Four.", '{"x": 4}']}})
    answer = infer(service, prompt=QUESTION)

    report = answer["structured"]
    assert (report["first_verdict"], report["verdict"]) == ("not_json", "valid")
    assert [each["mode"] for each in report["attempt_details"]] == ["grammar", "json"]
    assert report["enforced"] == []
    assert "JSON Schema" in runtime.stats()["bodies"][-1]["messages"][-1]["content"]
