"""Tools through gunicorn and a runtime that, like Ollama, calls none beside a format."""

from __future__ import annotations

import json

import pytest

from tests.api.test_tools import BOTH, IN_ROME, TIME, WEATHER
from tests.support.process import wait_until

CALLER, TALKER = "tooly:1b", "talker:1b"
HELLO = [{"role": "user", "content": "Hello"}]
ROME = {"name": IN_ROME.name, "arguments": dict(IN_ROME.arguments)}
PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
pytestmark = pytest.mark.usefixtures("clean")


def capabilities(model):
    """Return the capabilities of a listed model; None until the service knows them."""
    return model["capabilities"]


@pytest.fixture(scope="module")
def service(start, runtime):
    runtime.control(pulled=[CALLER, TALKER])
    service = start(models={CALLER: {}, TALKER: {}}, WEB_CONCURRENCY=1)
    wait_until(lambda: all(map(capabilities, service.get("/v1/status").json()["models"])))
    return service


@pytest.fixture
def chat(service):
    def post(model=CALLER, **fields):
        body = {"model": model, "messages": HELLO, **fields}
        response = service.post("/v1/chat/completions", body)
        assert response.status_code == 200, response.text
        return response

    return post


def sent(runtime):
    """Return the bodies of the generations that the runtime received."""
    return [body for body in runtime.stats()["bodies"] if body.get("messages")]


def test_a_missing_call_is_asked_for_again(chat, runtime):
    runtime.control(reply="No.", calls=[[], [ROME]])
    answer = chat(tools=BOTH, tool_choice="required").json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert answer["mes"]["structured"]["first_verdict"] == "no_tool_call"
    assert [body["tools"] for body in sent(runtime)] == [BOTH, BOTH]


def test_a_format_beside_tools_comes_with_the_second_attempt(chat, runtime):
    runtime.control(reply=["I am 25.", '{"age": 25}'], calls=[[], [ROME]])
    answer = chat(tools=BOTH, response_format=AS_PERSON).json()
    assert answer["choices"][0]["message"]["content"] == '{"age": 25}'
    first, second = sent(runtime)
    assert (first["tools"], first.get("format")) == (BOTH, None)
    assert (second.get("tools"), second["format"]) == (None, PERSON)


def test_a_model_without_tools_writes_the_call(chat, runtime):
    runtime.control(reply=json.dumps(ROME))
    answer = chat(model=TALKER, tools=BOTH, tool_choice="required").json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    (body,) = sent(runtime)
    assert "tools" not in body
    assert len(body["format"]["anyOf"]) == 2


def test_a_written_call_is_streamed_whole(chat, runtime):
    runtime.control(reply=json.dumps(ROME, indent=2))
    fields = {"tools": BOTH, "tool_choice": "required", "stream": True}
    response = chat(model=TALKER, **fields)
    *chunks, done = response.text.removesuffix("\n\n").split("\n\n")
    first, last = (json.loads(each.removeprefix("data: ")) for each in chunks)
    assert done == "data: [DONE]"
    (call,) = first["choices"][0]["delta"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert last["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("calls", [[ROME], [ROME, ROME], [{"name": "", "arguments": {}}], [{}]])
@pytest.mark.parametrize("reply", ["", "Yes."])
@pytest.mark.parametrize(
    "fields", [{}, {"response_format": AS_PERSON}, {"tools": [WEATHER], "tool_choice": "required"}]
)
def test_calls_where_a_text_was_requested_get_a_verdict(
    chat, runtime, stream, calls, reply, fields
):
    runtime.control(reply=reply, calls=[calls], calls_unasked=True)
    response = chat(stream=stream, **fields)
    if stream:
        assert response.text.endswith("data: [DONE]\n\n")
        assert '"success":false' in response.text or '"success":true' in response.text
    else:
        assert isinstance(response.json()["mes"]["success"], bool)


def test_one_call_at_a_time(chat, runtime):
    zone = {"name": TIME["function"]["name"], "arguments": {"zone": "utc"}}
    runtime.control(reply="", calls=[[ROME, zone]])
    answer = chat(tools=BOTH, parallel_tool_calls=False).json()
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1
    assert answer["mes"]["dropped_tool_calls"] == 1
