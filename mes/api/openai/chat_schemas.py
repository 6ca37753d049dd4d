"""Schemas of chat requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.ignored_fields import Ignored, NullOnly, ignored_names
from mes.api.messages import MessageSchema, require_calls, with_tool_names
from mes.api.openai.common import (
    ChoicesRequest,
    OpenAiRequestSchema,
    Parameters,
    choices_of,
    inference_of,
    wants_running_usage,
    wants_usage,
)
from mes.api.request_lists import MAX_MESSAGES, Items
from mes.api.request_schemas import (
    MESSAGES,
    NOT_EMPTY,
    Flag,
    Object,
    OnlyValue,
    Text,
    Whole,
    between,
    top_logprobs_count,
    without_nulls,
)
from mes.api.tool_schemas import ToolChoiceField, Tools, check_tool_choice, unused_format
from mes.domain.json_pointer import json_pointer
from mes.domain.tools import MODEL_CHOOSES

# Requests.

_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": False,
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
_EFFORT = validate.OneOf(_EFFORTS, error=f"must be one of {', '.join(_EFFORTS)}")
_FORMATS = ("text", "json_object", "json_schema")


@dataclass(frozen=True)
class ChatRequest(ChoicesRequest):
    """A chat completion."""

    @property
    def function(self) -> str | None:
        """The name of the function that has to be called; None if there is no single one."""
        function = self.inference.forced_function
        return None if function is None else str(function["name"])


class JsonSchemaSchema(OpenAiRequestSchema):
    """`response_format.json_schema`."""

    name = Text(allow_none=True)
    description = Text(allow_none=True)
    # Without effect: the answer is always validated against the schema.
    strict = Flag(allow_none=True)
    document = Object(required=True, data_key="schema")


class ResponseFormatSchema(OpenAiRequestSchema):
    """`response_format`."""

    type = Text(
        required=True,
        validate=validate.OneOf(_FORMATS, error=f"must be one of {', '.join(_FORMATS)}"),
    )
    json_schema = fields.Nested(JsonSchemaSchema, allow_none=True)

    @post_load
    def _schema(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        if values["type"] == "json_object":
            return {"type": "object"}
        if values["type"] == "text":
            return None
        if not values.get("json_schema"):
            raise ValidationError("is required with type json_schema", "json_schema")
        document: dict[str, Any] = values["json_schema"]["document"]
        return document


class ReasoningSchema(OpenAiRequestSchema):
    """`reasoning`, with the effort, as Ollama and OpenAI's other APIs have it."""

    effort = Text(allow_none=True, validate=_EFFORT)
    summary = Ignored()


class TemplateSchema(OpenAiRequestSchema):
    """`chat_template_kwargs`, with which vLLM and llama.cpp turn the reasoning on and off."""

    enable_thinking = Flag(allow_none=True)
    thinking = Flag(allow_none=True)


def _think(values: dict[str, Any]) -> bool | str:
    """Return whether the model thinks, or how much."""
    efforts = {values.get("reasoning_effort"), values.get("reasoning", {}).get("effort")} - {None}
    if len(efforts) > 1:
        raise ValidationError("differs from reasoning_effort; send one of the two", "reasoning")
    if efforts:
        return _EFFORTS[efforts.pop()]
    return any(without_nulls(values.get("chat_template_kwargs", {})).values())


def _think_pointer(values: dict[str, Any]) -> str:
    """Return the JSON pointer to the parameter that `_think` is read from."""
    if values.get("reasoning_effort") is not None:
        return "/reasoning_effort"
    if values.get("reasoning", {}).get("effort") is not None:
        return "/reasoning/effort"
    requested = [name for name, value in values.get("chat_template_kwargs", {}).items() if value]
    steps = ["chat_template_kwargs", requested[0]] if requested else ["reasoning_effort"]
    return json_pointer(steps)


class ChatRequestSchema(Parameters):
    """The body of `POST /v1/chat/completions`."""

    messages = Items(
        fields.Nested(MessageSchema),
        most=MAX_MESSAGES,
        required=True,
        validate=[NOT_EMPTY, require_calls],
    )
    response_format = fields.Nested(ResponseFormatSchema, allow_none=True, error_messages=MESSAGES)
    tools = Tools()
    tool_choice = ToolChoiceField(allow_none=True)
    parallel_tool_calls = Flag(allow_none=True)
    reasoning_effort = Text(allow_none=True, validate=_EFFORT)
    reasoning = fields.Nested(ReasoningSchema, allow_none=True)
    chat_template_kwargs = fields.Nested(TemplateSchema, allow_none=True)
    logprobs = Flag(allow_none=True)
    top_logprobs = Whole(allow_none=True, validate=between(0, 20))
    modalities = OnlyValue(["text"])
    # Accepted as null only.
    audio = NullOnly("only text is generated")
    functions = NullOnly("send tools")
    function_call = NullOnly("send tool_choice")
    web_search_options = NullOnly("MES searches nothing on behalf of a client")

    @post_load(pass_original=True)
    def _request(
        self, values: dict[str, Any], document: dict[str, Any], **kwargs: Any
    ) -> ChatRequest:
        values = without_nulls(values)
        check_tool_choice(values)
        inference = inference_of(
            values,
            messages=with_tool_names(values["messages"]),
            json_schema=values.get("response_format"),
            json_schema_pointer="/response_format/json_schema/schema",
            tools=tuple(values.get("tools", ())),
            tool_choice=values.get("tool_choice", MODEL_CHOOSES),
            parallel_tool_calls=values.get("parallel_tool_calls", True),
            think=_think(values),
            think_pointer=_think_pointer(values),
            top_logprobs=top_logprobs_count(values),
            ignored=(*ignored_names(self, document), *unused_format(values, "response_format")),
        )
        choices = choices_of(inference, values)
        return ChatRequest(choices, wants_usage(values), wants_running_usage(values))
