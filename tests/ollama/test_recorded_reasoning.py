"""The reasoning in recorded answers of a real Ollama, as field `thinking` or inside the text."""

from __future__ import annotations

import json

import pytest

from mes.domain import Event, Message, Thought, Token, Usage
from mes.errors import GenerationAborted, PromptTooLong, SchemaRefused
from tests.support.recorded import all_exchanges

from .conftest import generate
from .scripted import answers, last, line, lines, replay, streamed, token

THOUGHTS = [
    "chat-think-None",
    "chat-think-True",
    "chat-think-low",
    "chat-think-schema",
    "chat-thought-True",
    "chat-thought-nostream",
    "chat-thought-schema",
    "generate-think-None",
    "generate-think-True",
    "generate-think-low",
    "generate-think-schema",
    "generate-thought-True",
    "generate-thought-schema",
]


@pytest.mark.parametrize("case", THOUGHTS)
def test_the_reasoning_of_a_real_ollama_is_separated_from_the_answer(serve, runtime_client, case):
    messages = [part.get("message", part) for part in map(json.loads, lines(case))]

    reply = generate(runtime_client(serve(replay(case))))

    assert reply.reasoning == "".join(each.get("thinking", "") for each in messages).strip()
    assert reply.text == "".join(each.get("content", each.get("response")) for each in messages)


@pytest.mark.parametrize("case", ["chat-thought-False", "generate-thought-False"])
def test_reasoning_that_ollama_leaves_in_the_text_is_separated_too(serve, runtime_client, case):
    reply = generate(runtime_client(serve(replay(case))))

    assert (reply.reasoning, reply.text) == ("easy", '{"x": 4}')


@pytest.mark.parametrize("format", [None, {"type": "object"}])
def test_reasoning_without_a_begin_tag_is_no_part_of_the_answer(serve, runtime_client, format):
    server = serve(answers(streamed(token("So {}."), token("</th"), token('ink>{"x": 4}'), last())))
    reply = generate(runtime_client(server), format=format)

    assert (reply.reasoning, reply.text) == ("So {}.", '{"x": 4}')


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
THINKING_JSON = {"think": True, "format": SCHEMA}


def test_a_prompt_with_reasoning_and_a_schema_is_requested_as_in_the_recording_that_worked(
    serve, runtime_client
):
    server = serve(replay("chat-thought-schema"))
    recorded = all_exchanges()["chat-thought-schema"]["request"]["body"]
    emitted: list[Event] = []

    reply = generate(
        runtime_client(server),
        text=recorded["messages"][0]["content"],
        emit=lambda *events: emitted.extend(events),
        **THINKING_JSON,
    )

    sent = server.asked[0]
    assert sent.line == "POST /api/chat HTTP/1.1"
    assert {name: sent.json[name] for name in ("messages", "think", "format")} == {
        name: recorded[name] for name in ("messages", "think", "format")
    }
    assert (reply.reasoning, json.loads(reply.text)) == ("easy", {"x": 2})
    assert "".join(each.text for each in emitted if isinstance(each, Thought)) == "easy\n"
    assert "".join(each.text for each in emitted if isinstance(each, Token)) == reply.text


@pytest.mark.parametrize("messages", [(), (Message("user", "What is 2+2?"),)])
def test_the_tokens_and_times_of_both_runs_are_counted(serve, runtime_client, messages):
    final = json.loads(lines("chat-thought-schema")[-1])

    reply = generate(
        runtime_client(serve(replay("chat-thought-schema"))), messages=messages, **THINKING_JSON
    )

    # The second run reads the reasoning again, and generates the 9 tokens that are reported. The
    # reasoning arrived in 2 pieces.
    assert reply.usage == Usage(105, 9 + 2, counted_by_mes=2)
    measured_ms = reply.prompt_ms + reply.generation_ms + final["load_duration"] / 1e6
    assert measured_ms == pytest.approx(final["total_duration"] / 1e6)
    assert reply.generation_ms >= final["eval_duration"] / 1e6
    assert reply.prompt_ms >= final["prompt_eval_duration"] / 1e6


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("chat-thought-True", {"think": True}),
        ("chat-thought-True", THINKING_JSON),  # one run, as for models with a native template
        ("chat-think-schema", THINKING_JSON),  # the reasoning did not end
    ],
)
def test_a_single_run_has_the_counts_of_the_runtime(serve, runtime_client, case, more):
    final = json.loads(lines(case)[-1])

    reply = generate(runtime_client(serve(replay(case))), **more)

    assert reply.usage == Usage(final["prompt_eval_count"], final["eval_count"])
    assert reply.generation_ms == final["eval_duration"] / 1e6


@pytest.mark.parametrize("case", ["generate-thought-schema", "chat-think-schema"])
def test_reasoning_is_never_the_answer_however_it_looks(serve, runtime_client, case):
    reply = generate(runtime_client(serve(replay(case))), **THINKING_JSON)

    assert reply.reasoning
    assert reply.text == ""


REFUSED_SCHEMA = json.dumps(
    {"error": {"code": 400, "message": "Failed to initialize samplers: failed to parse grammar"}}
)
TOO_LONG = json.dumps(
    {
        "error": {
            "code": 400,
            "message": "request (520 tokens) exceeds the available context size (512 tokens)",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 520,
            "n_ctx": 512,
        }
    }
)


def thought(text: str) -> bytes:
    return line(message={"role": "assistant", "content": "", "thinking": text}, done=False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(REFUSED_SCHEMA, SchemaRefused), (TOO_LONG, PromptTooLong), ("broken", GenerationAborted)],
)
def test_a_second_run_that_is_refused_has_the_error_of_a_refused_request(
    serve, runtime_client, error, expected
):
    server = serve(answers(streamed(thought("Well"), line(error=error))))

    with pytest.raises(expected) as caught:
        generate(runtime_client(server), **THINKING_JSON)

    assert type(caught.value) is expected
    if expected is PromptTooLong:
        start = (
            "with the reasoning of the model after it, the prompt is too long: it has 520 tokens"
        )
        assert caught.value.detail.startswith(start)


def test_a_grammar_that_fails_in_the_middle_of_an_answer_is_no_refusal(serve, runtime_client):
    answer = line(message={"role": "assistant", "content": "{"}, done=False)
    server = serve(answers(streamed(thought("Well"), answer, line(error=REFUSED_SCHEMA))))

    with pytest.raises(GenerationAborted):
        generate(runtime_client(server), **THINKING_JSON)
