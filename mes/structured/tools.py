"""Tools: their parameters screened like any schema, and a model's calls judged by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mes.domain import Judgement, ToolCall, Violation
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.structured.limits import Limits
from mes.structured.schemas import Schema, check


@dataclass(frozen=True)
class Tools:
    """The functions that a model may call, by their names."""

    schemas: Mapping[str, Schema]

    def judge(self, call: ToolCall) -> Judgement:
        """Do the arguments fit the parameters? The verdict: valid or schema_violation."""
        schema = self.schemas.get(call.name)
        if schema is None:
            stranger = Violation("", "", f"there is no tool called {call.name[:100]}")
            return Judgement("schema_violation", errors=(stranger,))
        return schema.judge(json.dumps(dict(call.arguments)), "stop")


def tools_of(tools: Sequence[Mapping[str, Any]], limits: Limits) -> Tools:
    """Raises SchemaInvalid and SchemaUnsafe, with pointers into the list of tools."""
    functions = [tool["function"] for tool in tools]
    return Tools({each["name"]: _screened(n, each, limits) for n, each in enumerate(functions)})


def _screened(number: int, function: Mapping[str, Any], limits: Limits) -> Schema:
    try:
        return check(function.get("parameters", {}), limits)
    except (SchemaInvalid, SchemaUnsafe) as exc:
        place = f"/tools/{number}/function/parameters"
        mistakes = tuple(
            replace(each, pointer=each.pointer.replace("/json_schema", place, 1))
            for each in exc.mistakes
        )
        raise type(exc)(f"the parameters of tools[{number}]: {exc}", mistakes=mistakes) from exc
