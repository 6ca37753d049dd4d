"""Messages of a conversation in OpenAI's format."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.openai.common import OnlyValue, OpenAiRequestSchema
from mes.api.request_lists import MAX_PARTS, MAX_TOOL_CALLS, Items, check_length
from mes.api.request_schemas import MESSAGES, NOT_EMPTY, Text
from mes.domain import Message, ToolCall
from mes.strict_json import NotJson, parse_json

_ROLES = ("system", "developer", "user", "assistant", "tool")


class Content(fields.Field[tuple[str, tuple[str, ...]]]):
    """A text, or a list of texts and images. Loads as the text and the images in base64."""

    shape: dict[str, Any] = {"type": ["string", "array"], "items": {"type": "object"}}
    shape |= {"minItems": 1, "maxItems": MAX_PARTS}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            return value, ()
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a string or a list of parts")
        check_length(value, MAX_PARTS)
        parts = [_part(number, each) for number, each in enumerate(value)]
        texts = [text for kind, text in parts if kind == "text"]
        return "\n".join(texts), tuple(data for kind, data in parts if kind == "image_url")


def _part(number: int, part: Any) -> tuple[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return kind, part["text"]
    if kind == "image_url" and isinstance(part.get("image_url"), dict):
        return kind, _image(number, part["image_url"].get("url"))
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


class FunctionCallSchema(OpenAiRequestSchema):
    """A called function and its arguments, which are JSON in a string."""

    name = Text(required=True, validate=NOT_EMPTY)
    arguments = Text(required=True)

    @post_load
    def _call(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        try:
            arguments = parse_json(values["arguments"].encode("utf-8", "replace") or b"{}")
        except NotJson as exc:
            raise ValidationError(f"must be a JSON object in a string: {exc}", "arguments") from exc
        if not isinstance(arguments, dict):
            raise ValidationError("must be a JSON object in a string", "arguments")
        return {"name": values["name"], "arguments": arguments}


class MessageToolCallSchema(OpenAiRequestSchema):
    """A tool call in an earlier message of the assistant."""

    component_name = "ToolCall"

    id = Text(required=True, validate=NOT_EMPTY)
    type = OnlyValue("function")
    index = fields.Raw(allow_none=True)
    function = fields.Nested(FunctionCallSchema, required=True, error_messages=MESSAGES)

    @post_load
    def _call(self, values: dict[str, Any], **kwargs: Any) -> ToolCall:
        return ToolCall(values["id"], **values["function"])


class ChatMessageSchema(OpenAiRequestSchema):
    """One message. The message of a response can be sent back unchanged."""

    role = Text(
        required=True,
        validate=validate.OneOf(_ROLES, error=f"must be one of {', '.join(_ROLES)}"),
    )
    content = Content(allow_none=True)
    tool_calls = Items(fields.Nested(MessageToolCallSchema), most=MAX_TOOL_CALLS, allow_none=True)
    tool_call_id = Text(allow_none=True, validate=NOT_EMPTY)
    name = Text(allow_none=True)
    # Accepted, but not sent to the model: models do not expect their earlier reasoning.
    reasoning = Text(allow_none=True)
    refusal = OnlyValue(None)
    audio = OnlyValue(None)
    function_call = OnlyValue(None)
    annotations = OnlyValue([])

    @post_load
    def _message(self, values: dict[str, Any], **kwargs: Any) -> Message:
        role, calls = values["role"], tuple(values.get("tool_calls") or ())
        if values.get("content") is None and not calls:
            raise ValidationError("is required", "content")
        if calls and role != "assistant":
            raise ValidationError("are only allowed with role assistant", "tool_calls")
        if role == "tool" and not values.get("tool_call_id"):
            raise ValidationError("is required with role tool", "tool_call_id")
        if values.get("name") and role != "tool":
            raise ValidationError("is supported with role tool only; leave it out", "name")
        text, images = values.get("content") or ("", ())
        return Message(
            role="system" if role == "developer" else role,
            content=text,
            images=images,
            tool_calls=calls,
            tool_call_id=values.get("tool_call_id"),
            tool_name=values.get("name"),
        )


def with_tool_names(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the messages, with the name of the called tool in each message of role `tool`.

    Raises ValidationError for a result without a call before it.
    """
    names: dict[str | None, str] = {}
    named = []
    for number, message in enumerate(messages):
        names.update((call.id, call.name) for call in message.tool_calls)
        if message.role == "tool" and message.tool_name is None:
            if message.tool_call_id not in names:
                mistake = {"tool_call_id": "is not the id of a call in an earlier message"}
                raise ValidationError({"messages": {number: mistake}})
            message = replace(message, tool_name=names[message.tool_call_id])
        named.append(message)
    return tuple(named)
