"""Conversations with tool calls as plain text, for models without the capability `tools`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from mes.domain.inference_request import Message, ToolCall

_SEPARATOR = "\n\n"


def call_text(call: ToolCall) -> str:
    """Return the call as JSON, in the form in which a model without tools has to write it."""
    arguments = call.arguments if isinstance(call.arguments, str) else dict(call.arguments)
    return json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)


def as_plain_turns(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the conversation with its tool calls and their results as text.

    A model without the capability `tools` has no template for them. A call becomes text of the
    assistant, a result text of the user. Results and the user's messages beside them become one
    message, because many templates refuse two messages of the user in a row.
    """
    groups = groupby(messages, key=lambda message: message.role in ("user", "tool"))
    return tuple(
        plain
        for is_user, group in groups
        for plain in (_user_turns(tuple(group)) if is_user else map(_with_calls_as_text, group))
    )


def _with_calls_as_text(message: Message) -> Message:
    if not message.tool_calls:
        return message
    texts = [message.content, *map(call_text, message.tool_calls)]
    return replace(message, content="\n".join(filter(None, texts)), tool_calls=())


def _user_turns(turns: tuple[Message, ...]) -> Iterator[Message]:
    if all(turn.role == "user" for turn in turns):
        yield from turns
        return
    content = _SEPARATOR.join(filter(None, map(_user_text, turns)))
    yield Message("user", content, tuple(image for turn in turns for image in turn.images))


def _user_text(turn: Message) -> str:
    if turn.role == "user":
        return turn.content
    source = f"the function {turn.tool_name}" if turn.tool_name else "a function"
    return f"Result of {source}:\n{turn.content}"
