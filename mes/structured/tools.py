"""Tools: their parameters screened like any schema, and a model's calls judged by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mes.domain import ToolCall, ValidationResult, Violation
from mes.structured.limits import Limits
from mes.structured.schemas import Schema, check


@dataclass(frozen=True)
class Tools:
    """The functions that a model may call, by their names."""

    schemas: Mapping[str, Schema]

    def judge(self, call: ToolCall) -> ValidationResult:
        """Do the arguments fit the parameters? The verdict: valid or schema_violation."""
        schema = self.schemas.get(call.name)
        if schema is None:
            stranger = Violation("", "", f"there is no tool called {call.name[:100]}")
            return ValidationResult("schema_violation", errors=(stranger,))
        return schema.judge(json.dumps(dict(call.arguments)), "stop")


def tools_of(tools: Sequence[Mapping[str, Any]], limits: Limits) -> Tools:
    """Raises SchemaInvalid and SchemaUnsafe, with pointers into the list of tools."""
    return Tools(
        {
            tool["function"]["name"]: check(
                tool["function"].get("parameters", {}), limits, at=f"/tools/{n}/function/parameters"
            )
            for n, tool in enumerate(tools)
        }
    )
