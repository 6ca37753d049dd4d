"""Tools: sent in Ollama's form, and calls read from any line of the response."""

from __future__ import annotations

import json

import pytest

from mes.domain import Message, ToolCall
from mes.errors import RuntimeReplyInvalid

from .conftest import generate
from .scripted import END, Peer, Script, chunk, lines, replay

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
FUNCTION = {"index": 0, "name": "weather", "arguments": {"city": "Rome"}}
CALL = {"id": "call_1", "function": FUNCTION}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answering(*parts: dict) -> Script:
    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(HEAD)
            for part in parts:
                peer.send(chunk(json.dumps(part).encode() + b"\n"))
            peer.send(END)

    return script


def part(content: str = "", *, done: bool = False, **message: object) -> dict:
    fields = {"message": {"role": "assistant", "content": content, **message}, "done": done}
    return {**fields, "done_reason": "stop"} if done else fields


NATIVE = (part("Let me see."), part(done=True, tool_calls=[CALL]))
RENDERED = (part("Let me see."), part(tool_calls=[CALL]), part(done=True))


@pytest.mark.parametrize("parts", [NATIVE, RENDERED])
def test_a_call_is_read_from_any_line(serve, runtime_client, parts):
    question = (Message("user", "Is it warm in Rome?"),)
    reply = generate(runtime_client(serve(answering(*parts))), messages=question, tools=(WEATHER,))
    assert reply.text == "Let me see."
    assert reply.tool_calls == (ToolCall("call_1", "weather", {"city": "Rome"}),)


def test_a_call_without_an_id_is_given_one(serve, runtime_client):
    without_id = {"function": FUNCTION}
    answer = answering(part(done=True, tool_calls=[without_id, without_id]))
    reply = generate(runtime_client(serve(answer)), messages=(Message("user", "?"),))
    first, second = reply.tool_calls
    assert first.id != second.id
    assert first.id.startswith("call_")


def test_calls_that_are_repeated_in_a_later_line_count_once(serve, runtime_client):
    answer = answering(part(tool_calls=[CALL]), part(done=True, tool_calls=[CALL, CALL]))
    reply = generate(runtime_client(serve(answer)), messages=(Message("user", "?"),))
    assert reply.tool_calls == (ToolCall("call_1", "weather", {"city": "Rome"}),)


def test_different_calls_have_different_ids(serve, runtime_client):
    other = {"id": "call_1", "function": {**FUNCTION, "arguments": {"city": "Oslo"}}}
    answer = answering(part(done=True, tool_calls=[CALL, other]))
    first, second = generate(
        runtime_client(serve(answer)), messages=(Message("user", "?"),)
    ).tool_calls
    assert [each.arguments["city"] for each in (first, second)] == ["Rome", "Oslo"]
    assert first.id != second.id


def test_arguments_that_are_a_text_stay_a_text_for_the_verdict(serve, runtime_client):
    written = {"id": "call_1", "function": {"name": "weather", "arguments": "{Rome"}}
    answer = answering(part(done=True, tool_calls=[written]))
    reply = generate(runtime_client(serve(answer)), messages=(Message("user", "?"),))
    assert reply.tool_calls == (ToolCall("call_1", "weather", "{Rome"),)


def test_tools_and_the_results_of_their_calls_are_sent(serve, runtime_client):
    server = serve(answering(part("Yes.", done=True)))
    call = ToolCall("call_1", "weather", {"city": "Rome"})
    messages = (
        Message("user", "Is it warm in Rome?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "31 degrees", tool_call_id="call_1", tool_name="weather"),
    )

    generate(runtime_client(server), messages=messages, tools=(WEATHER,))

    asked = server.asked[0].json
    assert asked["tools"] == [WEATHER]
    assert asked["messages"] == [
        {"role": "user", "content": "Is it warm in Rome?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
            ],
        },
        {
            "role": "tool",
            "content": "31 degrees",
            "tool_call_id": "call_1",
            "tool_name": "weather",
        },
    ]


@pytest.mark.parametrize(
    "calls", [{"name": "weather"}, ["weather"], [{"function": {"arguments": ["Rome"]}}]]
)
def test_invalid_calls_are_an_invalid_reply(serve, runtime_client, calls):
    with pytest.raises(RuntimeReplyInvalid):
        generate(
            runtime_client(serve(answering(part(done=True, tool_calls=calls)))),
            messages=(Message("user", "?"),),
        )


@pytest.mark.parametrize(
    "case", ["chat-tool-call-stream", "chat-tool-call-nostream", "chat-tool-call-logprobs"]
)
def test_a_tool_call_of_a_real_ollama_is_read(serve, runtime_client, case):
    parts = [json.loads(text)["message"] for text in lines(case)]
    (recorded,) = [call for part in parts for call in part.get("tool_calls", [])]

    reply = generate(runtime_client(serve(replay(case))), messages=(Message("user", "?"),))

    assert reply.tool_calls == (ToolCall(recorded["id"], "get_weather", {"city": "Paris"}),)
    assert reply.text == ""
