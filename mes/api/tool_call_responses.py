"""Response schemas of tool calls and the verdicts on them."""

from __future__ import annotations

from typing import Any

from mes.api.response_fields import (
    ResponseSchema,
    choice,
    constant,
    json_value,
    nested,
    nested_list,
    string,
)
from mes.api.response_schemas import ViolationSchema
from mes.domain import ToolCall
from mes.strict_json import NotJson, parse_json

_VERDICTS = ("valid", "schema_violation", "not_json", "truncated", "empty", "undecided")


def judged_calls(outcome: Any) -> list[Any] | None:
    """Return the tool calls of the answer, each with its validation; None if there are none."""
    final = outcome.final
    return list(zip(final.tool_calls, final.tool_call_validations, strict=True)) or None


class JudgedCall(ResponseSchema):
    """The verdict on a tool call. The source is the call with its validation result."""

    id = string("Id of the call.", source=lambda judged: judged[0].id)
    verdict = choice(
        _VERDICTS,
        "Whether the arguments fit the parameters of the tool; `undecided` if that cannot be found "
        "out.",
        source=lambda judged: judged[1].verdict,
    )
    errors = nested_list(
        ViolationSchema,
        "Violations of the parameters' schema, at most 20; or why the call is undecided.",
        source=lambda judged: judged[1].errors,
    )


class JudgedFunction(ResponseSchema):
    """The function of a call."""

    name = string("Name of the function.")
    arguments = json_value(
        "Arguments of the call: an object, or the model's text if it is not JSON.",
        source=lambda call: _arguments(call),
    )


def _arguments(call: ToolCall) -> Any:
    if not isinstance(call.arguments, str):
        return dict(call.arguments)
    try:
        return parse_json(call.arguments)
    except NotJson:
        return call.arguments


class JudgedToolCall(JudgedCall):
    """A call of a tool and the verdict on it."""

    type = constant("function", "Always `function`.")
    function = nested(
        JudgedFunction, "The function and its arguments.", source=lambda judged: judged[0]
    )
