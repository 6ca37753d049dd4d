"""Payloads of generations: the conversation in the form that the runtime accepts."""

from __future__ import annotations

import pytest

from mes.domain import Message, Prompt, ToolCall
from mes.ollama.payloads import generation_payload, goes_to_chat
from tests import fakes

USER = Message("user", "Hello")


def assistant(text, *calls):
    return Message("assistant", text, tool_calls=calls)


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ([USER, assistant("a")], ["Hello", "a"]),
        ([USER, assistant(" a ")], ["Hello", " a "]),
        ([USER, assistant("a"), assistant("b"), assistant("c")], ["Hello", "a\n\nb\n\nc"]),
        ([USER, assistant("a"), assistant("")], ["Hello", "a"]),
        ([USER, assistant("")], ["Hello"]),
        ([assistant("")], [""]),
        ([assistant("a"), assistant("b"), USER], ["a", "b", "Hello"]),
        ([USER, assistant("a", ToolCall("1", "f", {})), assistant("b")], ["Hello", "a", "b"]),
    ],
)
def test_the_runtime_gets_one_message_to_continue(messages, sent):
    prompt = Prompt(fakes.spec(), "", None, {}, messages=tuple(messages))
    assert [each["content"] for each in generation_payload(prompt)["messages"]] == sent


SCHEMA = {"type": "object"}


@pytest.mark.parametrize("format", [SCHEMA, "json"])
@pytest.mark.parametrize("think", [True, "low"])
def test_a_prompt_with_reasoning_and_a_format_is_a_conversation(think, format):
    prompt = Prompt(fakes.spec(), "Hello", "Be brief.", {}, format=format, think=think)
    payload = generation_payload(prompt)

    assert goes_to_chat(prompt)
    assert payload["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert not {"prompt", "system"} & payload.keys()
    assert (payload["think"], payload["format"]) == (think, format)


@pytest.mark.parametrize("system", [None, ""])
def test_an_empty_system_prompt_leaves_the_one_of_the_model_in_force(system):
    prompt = Prompt(fakes.spec(), "Hello", system, {}, format=SCHEMA, think=True)
    assert [each["role"] for each in generation_payload(prompt)["messages"]] == ["user"]


@pytest.mark.parametrize(("think", "format"), [(False, SCHEMA), (False, None), (True, None)])
def test_any_other_prompt_stays_a_prompt(think, format):
    prompt = Prompt(fakes.spec(), "Hello", "Be brief.", {}, format=format, think=think)
    payload = generation_payload(prompt)

    assert not goes_to_chat(prompt)
    assert (payload["prompt"], payload["system"]) == ("Hello", "Be brief.")
    assert "messages" not in payload
