"""The reasoning in recorded answers of a real Ollama, as field `thinking` or inside the text."""

from __future__ import annotations

import json

import pytest

from .conftest import generate
from .scripted import answers, last, lines, replay, streamed, token

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
