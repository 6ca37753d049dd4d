"""Tools: what a model may call, and what it has to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.fields import MESSAGES, Flag, Object, Text
from mes.api.openai.parameters import Known, Only

NONE, AUTO, REQUIRED = "none", "auto", "required"
_FUNCTION = "function"

_NAME = validate.Regexp(
    r"^[A-Za-z0-9_-]{1,64}$", error="must be 1 to 64 letters, digits, underscores or dashes"
)


class FunctionSchema(Known):
    """A function that the model may call."""

    name = Text(required=True, validate=_NAME)
    description = Text(allow_none=True)
    parameters = Object(allow_none=True)
    # Its arguments are judged by all of its parameters in any case.
    strict = Flag(allow_none=True)

    @post_load
    def _function(self, given: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {
            "name": given["name"],
            "description": given.get("description") or "",
            "parameters": given.get("parameters") or {"type": "object", "properties": {}},
        }


class ToolSchema(Known):
    """A tool, which is a function."""

    type = Only("function")
    function = fields.Nested(FunctionSchema, required=True, error_messages=MESSAGES)

    @post_load
    def _tool(self, given: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"type": "function", "function": given["function"]}


@dataclass(frozen=True)
class Choice:
    """`none`, `auto`, `required`; or `function`, and which one."""

    kind: str
    name: str | None = None


class ToolChoice(fields.Field[Choice]):
    """A word, or the function that has to be called."""

    shape = {"type": ["string", "object"]}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value in (NONE, AUTO, REQUIRED):
            return Choice(value)
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValidationError(f"must be {NONE}, {AUTO}, {REQUIRED} or a function by its name")
        return Choice(_FUNCTION, function["name"])


def offered(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that the model is told of."""
    is_off = given.get("tool_choice", Choice(AUTO)).kind == NONE
    return [] if is_off else given.get("tools", [])


def required_function(given: dict[str, Any]) -> dict[str, Any] | None:
    """The one function that has to be called, where one has to."""
    choice = given.get("tool_choice", Choice(AUTO))
    if choice.kind in (NONE, AUTO):
        return None
    functions = [tool["function"] for tool in given.get("tools", [])]
    called = [each for each in functions if choice.name in (None, each["name"])]
    if not called:
        raise ValidationError("names no function of tools", "tool_choice")
    if len(called) > 1:
        mistake = "cannot be promised with several tools; name one of them"
        raise ValidationError(mistake, "tool_choice")
    (function,) = called
    return dict(function)
