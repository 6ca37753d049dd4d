"""Messages of a conversation, in OpenAI's format, which all endpoints with conversations share.

A message of an earlier response can be sent back unchanged. Its members that do not reach the
model, such as `reasoning`, are accepted and listed in the response.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from mes.api.ignored_fields import NullOnly
from mes.api.request_lists import MAX_IMAGES, MAX_PARTS, MAX_TOOL_CALLS, Items, check_length
from mes.api.request_schemas import MESSAGES, NOT_EMPTY, Image, OnlyValue, Text
from mes.domain import Message, ToolCall
from mes.strict_json import NotJson, parse_json

_ROLES = ("system", "developer", "user", "assistant", "tool")

# Types of parts with text, and the member that contains it.
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
# Types of parts that are not sent to the model: models do not expect their earlier reasoning.
_REASONING = ("thinking", "redacted_thinking", "reasoning")


class Content(fields.Field[tuple[str, tuple[str, ...]]]):
    """A text, or a list of texts and images. Loads as the text and the images in base64."""

    shape: dict[str, Any] = {"type": ["string", "array"], "maxItems": MAX_PARTS}
    shape |= {"items": {"type": ["object", "string"]}}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            return value, ()
        if not isinstance(value, list):
            raise ValidationError("must be a string or a list of parts")
        check_length(value, MAX_PARTS)
        parts = [_part(number, each) for number, each in enumerate(value)]
        texts = [text for kind, text in parts if kind == "text"]
        return "\n".join(texts), tuple(data for kind, data in parts if kind == "image_url")

    def ignored_names_below(self, value: Any) -> Iterator[str]:
        """Yield the names of the members of parts that have no effect."""
        for part in value if isinstance(value, list) else ():
            if isinstance(part, dict):
                yield from (f"[].{name}" for name in _ignored_in_part(part))


def _part(number: int, part: Any) -> tuple[str, str]:
    """Return `text` and the text, `image_url` and the image, or `reasoning` and nothing."""
    if isinstance(part, str):
        return "text", part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS and isinstance(part.get(_TEXTS[kind]), str):
        return "text", part[_TEXTS[kind]]
    if kind == "image_url" and isinstance(part.get("image_url"), dict | str):
        image = part["image_url"]
        return kind, _image(number, image if isinstance(image, str) else image.get("url"))
    if kind in _REASONING:
        return "reasoning", ""
    raise ValidationError({number: "must be a part of type text or image_url"})


def _image(number: int, url: Any) -> str:
    head, _, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
    try:
        decoded = head.startswith("data:image/") and b64decode(data, validate=True)
    except ValueError:
        decoded = b""
    if not decoded:
        # MES fetches nothing on behalf of a client.
        raise ValidationError({number: "must be an image in a data URL: data:image/png;base64,..."})
    return str(data)


def _ignored_in_part(part: Mapping[str, Any]) -> Iterator[str]:
    kind = part.get("type")
    used = ("type", kind if kind == "image_url" else _TEXTS.get(str(kind)))
    yield from (name for name in part if name not in used)
    image = part.get("image_url")
    if kind == "image_url" and isinstance(image, dict):
        yield from (f"image_url.{name}" for name in image if name != "url")


class ReturnedSchema(Schema):
    """A part of a message that may be sent back as it came, with members that MES does not know."""

    error_messages = {"type": "must be a JSON object"}

    class Meta:
        unknown = EXCLUDE


class Arguments(fields.Field[dict[str, Any]]):
    """Arguments of a call: a JSON object, or its text. Loads as the object.

    A model may have written another text; the client cannot correct it. The runtime accepts only
    an object, so the text becomes its one member.
    """

    shape = {"type": ["string", "object"]}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, dict):
            return value
        if not isinstance(value, str):
            raise ValidationError("must be a JSON object, or a string with one")
        if not value.strip():
            return {}
        try:
            arguments = parse_json(value.encode("utf-8", "replace"))
        except NotJson:
            arguments = None
        return arguments if isinstance(arguments, dict) else {"arguments": value}


class FunctionCallSchema(ReturnedSchema):
    """A called function and its arguments."""

    name = Text(required=True, validate=NOT_EMPTY)
    arguments = Arguments(allow_none=True)

    @post_load
    def _call(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"name": values["name"], "arguments": values.get("arguments") or {}}


class MessageToolCallSchema(ReturnedSchema):
    """A tool call in an earlier message of the assistant."""

    component_name = "ToolCall"

    id = Text(allow_none=True)
    type = OnlyValue("function")
    function = fields.Nested(FunctionCallSchema, required=True, error_messages=MESSAGES)

    @post_load
    def _call(self, values: dict[str, Any], **kwargs: Any) -> ToolCall:
        return ToolCall(values.get("id") or "", **values["function"])


class MessageSchema(ReturnedSchema):
    """One message of a conversation. The message of a response can be sent back unchanged."""

    role = Text(
        required=True,
        validate=validate.OneOf(_ROLES, error=f"must be one of {', '.join(_ROLES)}"),
    )
    content = Content(allow_none=True)
    images = Items(Image(), most=MAX_IMAGES, allow_none=True)
    tool_calls = Items(fields.Nested(MessageToolCallSchema), most=MAX_TOOL_CALLS, allow_none=True)
    tool_call_id = Text(allow_none=True, validate=NOT_EMPTY)
    # The name of the tool with role tool. The runtime has no place for other names.
    name = Text(allow_none=True)
    audio = NullOnly("send its transcript as content")
    function_call = NullOnly("send tool_calls")

    def ignores(self, name: str, message: Mapping[str, Any]) -> bool:
        """Return whether this member of the message does not reach the model."""
        return name == "name" and message.get("role") != "tool"

    @post_load
    def _message(self, values: dict[str, Any], **kwargs: Any) -> Message:
        role, calls = values["role"], tuple(values.get("tool_calls") or ())
        if "content" not in values and role != "assistant":
            raise ValidationError("is required", "content")
        if calls and role != "assistant":
            raise ValidationError("are only allowed with role assistant", "tool_calls")
        text, images = values.get("content") or ("", ())
        return Message(
            role="system" if role == "developer" else role,
            content=text,
            images=(*images, *(values.get("images") or ())),
            tool_calls=calls,
            tool_call_id=values.get("tool_call_id"),
            tool_name=values.get("name") if role == "tool" else None,
        )


def with_tool_names(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the messages, with the name of the called tool in each message of role `tool`."""
    names: dict[str | None, str] = {}
    named = []
    for message in messages:
        names.update((call.id, call.name) for call in message.tool_calls)
        if message.role == "tool" and message.tool_name is None:
            message = replace(message, tool_name=names.get(message.tool_call_id))
        named.append(message)
    return tuple(named)


def require_calls(messages: Iterable[Message]) -> None:
    """Raise ValidationError for a result of a tool without a call of the tool before it."""
    ids: set[str | None] = set()
    for number, message in enumerate(messages):
        ids.update(call.id for call in message.tool_calls)
        if message.role != "tool":
            continue
        if message.tool_call_id is None:
            mistake = "is required with role tool"
        elif message.tool_name is None and message.tool_call_id not in ids:
            mistake = "is not the id of a call in an earlier message"
        else:
            continue
        raise ValidationError({number: {"tool_call_id": mistake}})
