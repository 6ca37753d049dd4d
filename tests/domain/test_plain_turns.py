"""Conversations with tool calls, for models whose templates have no place for them."""

from __future__ import annotations

from mes.domain import Message, ToolCall
from mes.domain.plain_turns import as_plain_turns

ROME = ToolCall("call_1", "weather", {"city": "Rome"})
ASKED = Message("user", "Is it warm in Rome?")
CALLED = Message("assistant", "", tool_calls=(ROME,))
RESULT = Message("tool", "31 degrees", tool_call_id="call_1", tool_name="weather")


def texts(*messages):
    return [(each.role, each.content) for each in as_plain_turns(messages)]


def test_a_conversation_without_calls_is_unchanged():
    messages = (Message("system", "Be brief."), ASKED, ASKED, Message("assistant", "Yes."), ASKED)
    assert as_plain_turns(messages) == messages


def test_calls_and_results_become_text():
    assert texts(ASKED, CALLED, RESULT) == [
        ("user", "Is it warm in Rome?"),
        ("assistant", '{"name": "weather", "arguments": {"city": "Rome"}}'),
        ("user", "Result of the function weather:\n31 degrees"),
    ]
    assert not any(each.tool_calls for each in as_plain_turns((ASKED, CALLED, RESULT)))


def test_the_text_beside_a_call_is_kept():
    said = Message("assistant", "Let me see.", tool_calls=(ROME, ROME))
    ((_, content),) = texts(said)
    assert content.startswith('Let me see.\n{"name": "weather"')
    assert content.count("Rome") == 2


def test_results_and_the_question_after_them_are_one_message():
    pictured = Message("user", "And now?", images=("iVBORw0KGgo=",))
    *_, last = as_plain_turns((ASKED, CALLED, RESULT, RESULT, pictured))
    result = "Result of the function weather:\n31 degrees"
    assert last == Message("user", f"{result}\n\n{result}\n\nAnd now?", ("iVBORw0KGgo=",))


def test_arguments_that_are_a_text_stay_a_text():
    call = ToolCall("call_1", "weather", "Rome?")
    assert texts(Message("assistant", "", tool_calls=(call,))) == [
        ("assistant", '{"name": "weather", "arguments": "Rome?"}')
    ]
