"""Schemas of chat requests and their tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.ignored_fields import Ignored, NullOnly, ignored_names
from mes.api.messages import MessageSchema, require_calls, with_tool_names
from mes.api.openai.common import (
    OpenAiRequestSchema,
    Parameters,
    choices_of,
    inference_of,
    wants_running_usage,
    wants_usage,
)
from mes.api.request_lists import MAX_MESSAGES, MAX_TOOLS, Items
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
from mes.domain import InferenceRequest

# Tools.

NONE, AUTO, REQUIRED = "none", "auto", "required"
_FUNCTION = "function"

_NAME = validate.Regexp(
    r"^[A-Za-z0-9_-]{1,64}$", error="must be 1 to 64 letters, digits, underscores or dashes"
)


class FunctionSchema(OpenAiRequestSchema):
    """A function that the model may call."""

    name = Text(required=True, validate=_NAME)
    description = Text(allow_none=True)
    parameters = Object(allow_none=True)
    # Without effect: arguments are always validated against the parameters.
    strict = Flag(allow_none=True)

    @post_load
    def _function(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {
            "name": values["name"],
            "description": values.get("description") or "",
            "parameters": values.get("parameters") or {"type": "object", "properties": {}},
        }


class ToolSchema(OpenAiRequestSchema):
    """A tool. Functions are the only kind."""

    type = OnlyValue("function")
    function = fields.Nested(FunctionSchema, required=True, error_messages=MESSAGES)

    @post_load
    def _tool(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"type": "function", "function": values["function"]}


@dataclass(frozen=True)
class ToolChoice:
    """`none`, `auto`, `required`; or `function` with the name of the function."""

    kind: str
    name: str | None = None


class ToolChoiceField(fields.Field[ToolChoice]):
    """`none`, `auto` or `required`, or the function that has to be called."""

    shape = {"type": ["string", "object"]}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value in (NONE, AUTO, REQUIRED):
            return ToolChoice(value)
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValidationError(f"must be {NONE}, {AUTO}, {REQUIRED} or a function with its name")
        return ToolChoice(_FUNCTION, function["name"])


def offered_tools(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tools that are sent to the model."""
    is_off = values.get("tool_choice", ToolChoice(AUTO)).kind == NONE
    return [] if is_off else values.get("tools", [])


def required_function(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the function that has to be called; None if the model may choose.

    Raises ValidationError if no function or several functions match the choice.
    """
    choice = values.get("tool_choice", ToolChoice(AUTO))
    if choice.kind in (NONE, AUTO):
        return None
    functions = [tool["function"] for tool in values.get("tools", [])]
    called = [each for each in functions if choice.name in (None, each["name"])]
    if not called:
        raise ValidationError("does not name a function of tools", "tool_choice")
    if len(called) > 1:
        mistake = "is not supported with several tools; name one of them"
        raise ValidationError(mistake, "tool_choice")
    (function,) = called
    return dict(function)


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
class ChatRequest:
    """An inference request and the form of its response.

    `choices` are the requests of the single choices. With a `function`, the answer is returned as
    the arguments of a call of it.
    """

    inference: InferenceRequest
    choices: list[InferenceRequest]
    with_usage: bool
    with_running_usage: bool
    function: str | None


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
    return f"/chat_template_kwargs/{requested[0]}" if requested else "/reasoning_effort"


class ChatRequestSchema(Parameters):
    """The body of `POST /v1/chat/completions`."""

    messages = Items(
        fields.Nested(MessageSchema),
        most=MAX_MESSAGES,
        required=True,
        validate=[NOT_EMPTY, require_calls],
    )
    response_format = fields.Nested(ResponseFormatSchema, allow_none=True, error_messages=MESSAGES)
    tools = Items(fields.Nested(ToolSchema), most=MAX_TOOLS, allow_none=True)
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
        function = required_function(values)
        tools = offered_tools(values)
        _refuse_contradictions(values, tools, function)
        schema = function["parameters"] if function else values.get("response_format")
        inference = inference_of(
            values,
            messages=with_tool_names(values["messages"]),
            json_schema=schema,
            json_schema_pointer=_schema_pointer(values, function),
            tools=() if function else tuple(tools),
            think=_think(values),
            think_pointer=_think_pointer(values),
            top_logprobs=top_logprobs_count(values),
            ignored=ignored_names(self, document),
        )
        return ChatRequest(
            inference=inference,
            choices=choices_of(inference, values),
            with_usage=wants_usage(values),
            with_running_usage=wants_running_usage(values),
            function=function["name"] if function else None,
        )


def _schema_pointer(values: dict[str, Any], function: dict[str, Any] | None) -> str:
    """Return the JSON pointer to the schema in the request."""
    if function is None:
        return "/response_format/json_schema/schema"
    names = [tool["function"]["name"] for tool in values["tools"]]
    return f"/tools/{names.index(function['name'])}/function/parameters"


def _refuse_contradictions(
    values: dict[str, Any], tools: list[dict[str, Any]], function: dict[str, Any] | None
) -> None:
    """Raise ValidationError for parameters that the runtime ignores or cannot combine."""
    if tools and values.get("response_format"):
        raise ValidationError("cannot be combined with tools", "response_format")
    if tools and not function and values.get("parallel_tool_calls") is False:
        mistake = "is not supported, unless tool_choice names the function to call"
        raise ValidationError(mistake, "parallel_tool_calls")
