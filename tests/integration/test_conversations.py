"""Conversations as clients send them, over gunicorn and a runtime with Ollama's checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.service import KEY, FakeOllama, Service

MODEL = "mistral:7b"
USER = {"role": "user", "content": "Is it warm in Rome?"}
ASSISTANT = {"role": "assistant", "content": "It is"}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "no such city"}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start, runtime) -> Service:
    runtime.control(abilities={MODEL: ["tools"]})
    return start(models={MODEL: {}})


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, timeout=60) as client:
        yield client


def received(runtime: FakeOllama) -> list[dict[str, Any]]:
    """Return the messages that the runtime got last."""
    return [body for body in runtime.stats()["bodies"] if body.get("messages")][-1]["messages"]


@pytest.mark.parametrize("stream", [False, True])
def test_messages_at_the_end_reach_the_runtime_as_one_to_continue(client, runtime, stream):
    messages = [USER, ASSISTANT, {**ASSISTANT, "content": "warm", "name": "critic"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, stream=stream)
    facts = list(answer)[-1].mes if stream else answer.mes
    assert facts["ignored"] == ["messages[].name"]
    assert received(runtime)[1:] == [{"role": "assistant", "content": "It is\n\nwarm"}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [('{"city": "Rome"}', {"city": "Rome"}), ('{"city": ', {"arguments": '{"city": '}), ("", {})],
)
def test_arguments_reach_the_runtime_as_an_object(client, runtime, arguments, expected):
    function = {"name": "weather", "arguments": arguments, "parsed_arguments": None}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    client.chat.completions.create(model=MODEL, messages=[USER, message, RESULT])
    _, called, result = received(runtime)
    (sent,) = called["tool_calls"]
    assert sent["function"]["arguments"] == expected
    assert result["tool_name"] == "weather"


def test_a_message_of_the_sdk_can_be_sent_back(client, runtime):
    message = client.chat.completions.create(model=MODEL, messages=[USER]).choices[0].message
    client.chat.completions.create(model=MODEL, messages=[USER, message, USER])
    assert [each["role"] for each in received(runtime)] == ["user", "assistant", "user"]
