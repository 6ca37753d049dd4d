"""Tools in requests: the functions that are offered, and the choice among them."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.request_lists import MAX_TOOLS, Items
from mes.api.request_schemas import MESSAGES, Flag, Object, Strict, Text
from mes.domain import Tool, ToolChoice
from mes.domain.tools import AUTO, MODEL_CHOOSES, NONE, REQUIRED, function_name

# "any" is the word for "required" in other APIs.
_KINDS = {NONE: NONE, AUTO: AUTO, REQUIRED: REQUIRED, "any": REQUIRED}

_NAME = validate.Regexp(
    r"^[A-Za-z0-9_-]{1,64}$", error="must be 1 to 64 letters, digits, underscores or dashes"
)
_TYPE = validate.OneOf(("function",), error="must be function, the only supported kind of tool")
_UNKNOWN = {"unknown": "is not supported; leave it out", "type": "must be a JSON object"}


class FunctionSchema(Strict):
    """A function that the model may call."""

    error_messages = _UNKNOWN

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


class ToolSchema(Strict):
    """A tool. Functions are the only kind."""

    error_messages = _UNKNOWN

    type = Text(allow_none=True, validate=_TYPE)
    function = fields.Nested(FunctionSchema, required=True, error_messages=MESSAGES)

    @post_load
    def _tool(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"type": "function", "function": values["function"]}


class Tools(Items):
    """A list of tools. A tool may be listed twice."""

    def __init__(self) -> None:
        super().__init__(fields.Nested(ToolSchema), most=MAX_TOOLS, allow_none=True)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        tools = super()._deserialize(value, *args, **kwargs)
        _refuse_ambiguous_names(tools)
        return tools


def _refuse_ambiguous_names(tools: list[Tool]) -> None:
    """Raise ValidationError for different functions with one name: a call could mean either."""
    by_name: dict[str, Tool] = {}
    for number, tool in enumerate(tools):
        if by_name.setdefault(function_name(tool), tool) != tool:
            mistake = "is the name of an earlier function too; give each its own name"
            raise ValidationError({number: {"function": {"name": mistake}}})


class ToolChoiceField(fields.Field[ToolChoice]):
    """`none`, `auto` or `required`, the function that has to be called, or the allowed tools."""

    shape = {"type": ["string", "object"]}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in _KINDS:
            return ToolChoice(_KINDS[value])
        choice = _allowed_tools(value) or _named_function(value)
        if choice is None:
            kinds = ", ".join(_KINDS)
            raise ValidationError(f"must be one of {kinds}, or a function with its name")
        return choice


def _named_function(value: Any) -> ToolChoice | None:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    return ToolChoice(REQUIRED, (function["name"],))


def _allowed_tools(value: Any) -> ToolChoice | None:
    """Return the choice of the form `{"type": "allowed_tools", "allowed_tools": {...}}`."""
    allowed = value.get("allowed_tools") if isinstance(value, dict) else None
    if not isinstance(allowed, dict) or allowed.get("mode") not in (AUTO, REQUIRED):
        return None
    tools = allowed.get("tools")
    choices = [_named_function(tool) for tool in tools] if isinstance(tools, list) else []
    names = [choice.names[0] for choice in choices if choice is not None]
    return ToolChoice(allowed["mode"], tuple(names)) if names and None not in choices else None


def check_tool_choice(values: dict[str, Any]) -> None:
    """Raise ValidationError if the choice names a function that is not offered, or needs one."""
    choice = values.get("tool_choice", MODEL_CHOOSES)
    offered = set(map(function_name, values.get("tools", [])))
    needs_function = choice.kind == REQUIRED or choice.names
    if needs_function and not (offered and offered.issuperset(choice.names)):
        raise ValidationError("does not name a function of tools", "tool_choice")


def unused_format(values: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the name of the parameter with the answer's schema, if a call is required instead."""
    is_required = values.get("tool_choice", MODEL_CHOOSES).kind == REQUIRED
    return (name,) if is_required and values.get(name) is not None else ()
