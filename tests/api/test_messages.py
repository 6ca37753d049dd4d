"""Messages as clients send them: by name, in parts, sent back, and in any order of the roles."""

from __future__ import annotations

import json

import pytest

from mes.domain import ToolCall
from tests.api.test_chat import HELLO, PIXEL, WEATHER, chat
from tests.api.test_inference import JOHN, PERSON

__all__ = ["chat"]  # a fixture

ASSISTANT = {"role": "assistant", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"}
SCHEMA_IN_WORDS = "Answer only with JSON that satisfies this JSON Schema"


@pytest.fixture
def native(ask):
    return lambda messages, **fields: ask(prompt=None, messages=messages, **fields)


@pytest.fixture(params=["chat", "native"])
def converse(request, chat, native):
    """Send a conversation to either endpoint, and return the answer's list of ignored names."""
    endpoint = {"chat": chat, "native": native}[request.param]

    def send(messages, **fields):
        response = endpoint(messages, **fields)
        assert response.status_code == 200, response.get_json()
        answer = response.get_json()
        return answer.get("mes", answer).get("ignored", [])

    return send


@pytest.mark.parametrize(
    ("message", "ignored"),
    [
        ({"role": "user", "content": "Hello", "name": "Ann"}, ["messages[].name"]),
        ({**ASSISTANT, "name": "supervisor"}, ["messages[].name"]),
        ({**SYSTEM, "name": "rules"}, ["messages[].name"]),
        ({"role": "user", "content": "Hello", "type": "text"}, ["messages[].type"]),
        (
            {"role": "user", "name": "Ann", "content": "Hello", "type": "text"},
            ["messages[].name", "messages[].type"],
        ),
        ({**ASSISTANT, "tool_calls": None, "images": None}, []),
        (
            {**ASSISTANT, "parsed": {"a": 1}, "reasoning_content": "Hm.", "refusal": None},
            ["messages[].parsed", "messages[].reasoning_content", "messages[].refusal"],
        ),
        (
            {**ASSISTANT, "reasoning": "Hm.", "reasoning_details": [{}], "thinking_blocks": []},
            ["messages[].reasoning", "messages[].reasoning_details", "messages[].thinking_blocks"],
        ),
        (
            {**ASSISTANT, "annotations": [], "audio": None, "function_call": None},
            ["messages[].annotations", "messages[].audio", "messages[].function_call"],
        ),
        (
            {**ASSISTANT, "provider_specific_fields": {"x": None}},
            ["messages[].provider_specific_fields"],
        ),
    ],
)
def test_members_that_do_not_reach_the_model_are_listed(converse, runtime, message, ignored):
    assert converse([message, *HELLO]) == ignored
    first, _ = runtime.prompts[-1].messages
    assert (first.role, first.content, first.tool_name) == (
        message["role"],
        message["content"],
        None,
    )


def test_each_kind_of_member_is_listed_once(converse):
    assert converse([{**ASSISTANT, "parsed": None}] * 3 + HELLO) == ["messages[].parsed"]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_every_role_may_have_its_content_in_parts(converse, runtime, role):
    parts = [{"type": "text", "text": "What is"}, "this", {"type": "refusal", "refusal": "?"}]
    assert converse([{"role": role, "content": parts}, *HELLO]) == []
    assert runtime.prompts[-1].messages[0].content == "What is\nthis\n?"


def test_the_result_of_a_tool_may_be_in_parts(converse, runtime):
    result = {**RESULT, "content": [{"type": "text", "text": "31 degrees"}]}
    assert converse([{**ASSISTANT, "tool_calls": [CALL]}, result]) == []
    assert runtime.prompts[-1].messages[-1].content == "31 degrees"


def test_members_of_parts_without_effect_are_listed(converse, runtime):
    image = {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}
    parts = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": image},
        {"type": "image_url", "image_url": image["url"]},
    ]
    assert converse([{"role": "user", "content": parts}]) == [
        "messages[].content[].thinking",
        "messages[].content[].signature",
        "messages[].content[].cache_control",
        "messages[].content[].image_url.detail",
    ]
    (message,) = runtime.prompts[-1].messages
    assert (message.content, message.images) == ("What is this?", (PIXEL, PIXEL))


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_content_may_be_empty(converse, runtime, role, content):
    assert converse([{"role": role, "content": content}, *HELLO]) == []
    assert runtime.prompts[-1].messages[0].content == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": "Rome"}', {"city": "Rome"}),
        ({"city": "Rome"}, {"city": "Rome"}),
        ("", {}),
        (None, {}),
        ("{", {"arguments": "{"}),
        ("Rome", {"arguments": "Rome"}),
        ('["Rome"]', {"arguments": '["Rome"]'}),
        ('{"a": 1, "a": 2}', {"arguments": '{"a": 1, "a": 2}'}),
    ],
)
def test_arguments_that_are_no_object_are_passed_on_as_text(converse, runtime, arguments, expected):
    function = {"name": "weather", "arguments": arguments, "parsed_arguments": None}
    call = {"index": 0, **CALL, "function": function}
    assert converse([*HELLO, {"role": "assistant", "tool_calls": [call]}, RESULT]) == [
        "messages[].tool_calls[].index",
        "messages[].tool_calls[].function.parsed_arguments",
    ]
    _, called, _ = runtime.prompts[-1].messages
    assert called.tool_calls == (ToolCall("call_1", "weather", expected),)


@pytest.mark.parametrize(
    "messages",
    [
        [*HELLO, ASSISTANT],
        [*HELLO, ASSISTANT, SYSTEM],
        [SYSTEM],
        [ASSISTANT],
        [SYSTEM, {"role": "assistant", "tool_calls": [CALL]}, RESULT],
    ],
)
class TestOrderOfRoles:
    def test_a_conversation_may_have_and_end_with_any_role(self, converse, runtime, messages):
        assert converse(messages) == []
        roles = [each.role for each in runtime.prompts[-1].messages]
        assert roles == [each["role"] for each in messages]

    def test_a_schema_in_words_is_in_the_last_turn_that_is_not_the_models(
        self, native, runtime, messages
    ):
        runtime.answers = lambda prompt: JOHN
        assert native(messages, json_schema=PERSON, constrain=False).get_json()["success"]
        sent = runtime.prompts[-1].messages
        last = max((n for n, m in enumerate(sent) if m.role != "assistant"), default=None)
        assert [n for n, m in enumerate(sent) if SCHEMA_IN_WORDS in m.content] == [last]
        assert sent[-1].role in (messages[-1]["role"], "tool")


def test_feedback_is_in_the_last_turn_that_is_not_the_models(native, runtime):
    answers = iter(['{"name": "John"}', JOHN])
    runtime.answers = lambda prompt: next(answers)
    native([*HELLO, ASSISTANT], json_schema=PERSON, max_attempts=2)
    question, prefill = runtime.prompts[-1].messages
    assert "Your last answer was" in question.content
    assert prefill.content == "Hi"


def test_a_call_without_an_id_is_accepted(native, runtime):
    call = {"function": {"name": "weather", "arguments": {}}}
    result = {"role": "tool", "name": "weather", "content": "31 degrees"}
    assert native([*HELLO, {"role": "assistant", "tool_calls": [call]}, result]).status_code == 200
    assert runtime.prompts[-1].messages[1].tool_calls == (ToolCall("", "weather", {}),)
    assert runtime.prompts[-1].messages[-1].tool_name == "weather"


def test_a_result_without_its_call_needs_no_name_at_the_native_endpoint(native, runtime):
    assert native([*HELLO, {"role": "tool", "content": "31 degrees"}]).status_code == 200
    assert runtime.prompts[-1].messages[-1].tool_name is None


def test_the_message_of_a_parsed_completion_can_be_sent_back(chat, runtime):
    runtime.tool_calls = (ToolCall("call_1", "weather", {"city": "Rome"}),)
    message = chat(tools=[WEATHER]).get_json()["choices"][0]["message"]
    message["parsed"] = None
    message["tool_calls"][0]["function"]["parsed_arguments"] = {"city": "Rome"}
    answer = chat([*HELLO, message, RESULT], tools=[WEATHER]).get_json()
    assert json.dumps(answer["mes"]["ignored"]) == json.dumps(
        [
            "messages[].refusal",
            "messages[].tool_calls[].function.parsed_arguments",
            "messages[].parsed",
        ]
    )
