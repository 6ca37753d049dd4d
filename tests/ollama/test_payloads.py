"""Payloads of generations: the conversation in the form that the runtime accepts."""

from __future__ import annotations

import pytest

from mes.domain import Message, Prompt, ToolCall
from mes.ollama.payloads import generation_payload
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
