"""Schemas of tools: the verdicts on calls, and one schema for the calls of several tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mes.domain import Tool, ToolCall, ValidationResult, Violation
from mes.domain.tools import function_name
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.structured.count_limits import without_counts
from mes.structured.decoding_modes import GRAMMAR
from mes.structured.normalize import DEFAULT_DIALECT
from mes.structured.schema import Schema, check_schema

Check = Callable[..., Schema]
"""`check_schema` with the limits and the runtime of the service."""

# A check takes up to 50 ms of CPU, and a request has room for hundreds of tools.
_MOST_SECONDS_TO_CHECK = 1.0
_TOO_LONG = "the schemas of the tools before it took too long to check; send fewer or simpler ones"

_ANY_OBJECT = {"type": "object"}
# The values of these keywords are data, in which "$ref" has no meaning.
_DATA_KEYWORDS = ("const", "enum", "default", "examples")


@dataclass(frozen=True)
class ToolSchemas:
    """The schemas of the parameters of tools, by the name of the function.

    `unchecked` has the reason for each tool whose schema cannot be used.
    """

    schemas: Mapping[str, Schema]
    unchecked: Mapping[str, str]

    @classmethod
    def none(cls) -> ToolSchemas:
        return cls({}, {})

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.schemas, *self.unchecked)

    def validate_call(self, call: ToolCall) -> ValidationResult:
        """Return the verdict on the arguments of a call.

        It is undecided if the schema of the tool cannot be used.
        """
        if call.name in self.unchecked:
            return _without_value("undecided", self.unchecked[call.name])
        schema = self.schemas.get(call.name)
        if schema is None:
            return _without_value("schema_violation", f"there is no tool called {call.name[:100]}")
        return schema.validate_answer(call.arguments_text, "stop")

    def offered(self, tool: Tool) -> Tool:
        """Return the tool as the runtime gets it: without counts that its grammar cannot hold."""
        schema, parameters = self.schemas.get(function_name(tool)), _parameters(tool)
        if schema is None:
            return _with_parameters(tool, _without_counts(parameters))
        bounded = schema.bounded_document
        return tool if bounded is schema.document else _with_parameters(tool, bounded)


def _without_value(verdict: str, detail: str) -> ValidationResult:
    return ValidationResult(verdict, errors=(Violation("", "", detail),))


def tool_schemas(tools: Iterable[Tool], check: Check) -> ToolSchemas:
    """Return the checked schemas of the tools.

    A schema that cannot be used costs the verdicts on the calls of its tool, and nothing else.
    """
    schemas, unchecked = dict[str, Schema](), dict[str, str]()
    began = time.thread_time()
    for tool in tools:
        if time.thread_time() - began > _MOST_SECONDS_TO_CHECK:
            unchecked[function_name(tool)] = _TOO_LONG
            continue
        try:
            schemas[function_name(tool)] = check(_parameters(tool), at="/parameters")
        except (SchemaInvalid, SchemaUnsafe) as exc:
            unchecked[function_name(tool)] = exc.detail.replace("json_schema", "the schema", 1)
    return ToolSchemas(schemas, unchecked)


def _parameters(tool: Tool) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = tool["function"].get("parameters", {})
    return parameters


def _without_counts(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return dict(without_counts(parameters))
    except RecursionError:
        return _ANY_OBJECT


def _with_parameters(tool: Tool, parameters: Mapping[str, Any]) -> Tool:
    if "parameters" not in tool["function"]:
        return tool
    return {**tool, "function": {**tool["function"], "parameters": parameters}}


def shape_of_calls(tools: ToolSchemas) -> Schema:
    """Return the schema of any call of these tools, whatever its arguments are."""
    return check_schema(_call_schema({"enum": list(tools.names)}, _ANY_OBJECT))


def schema_of_calls(tools: ToolSchemas, check: Check) -> Schema:
    """Return the schema of a call of one of these tools, for a grammar.

    The arguments of a tool are any object if its schema cannot be used in the grammar, and those of
    all tools if their schemas are too large together.
    """
    usable = {name: each for name, each in tools.schemas.items() if _fits_grammar(each)}
    try:
        return check(_alternatives(tools.names, usable))
    except (SchemaInvalid, SchemaUnsafe):
        return check_schema(_alternatives(tools.names, {}))


def _fits_grammar(schema: Schema) -> bool:
    return schema.dialect == DEFAULT_DIALECT and GRAMMAR in schema.modes


def _alternatives(names: Iterable[str], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the schema of the calls, with the parameters of each function in `$defs`."""
    definitions: dict[str, Any] = {}
    calls = []
    for number, name in enumerate(names):
        arguments: dict[str, Any] = _ANY_OBJECT
        if name in schemas:
            place = f"#/$defs/arguments_{number}"
            document = {**schemas[name].document}
            document.pop("$schema", None)
            definitions[f"arguments_{number}"] = _moved(document, place)
            arguments = {"$ref": place}
        calls.append(_call_schema({"const": name}, arguments))
    return {"anyOf": calls, "$defs": definitions}


def _call_schema(name: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    properties = {"name": name, "arguments": arguments}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _moved(schema: Any, place: str) -> Any:
    """Return the schema with references that are right if it stands at `place` of another one."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {
        key: value if key in _DATA_KEYWORDS else _moved(value, place)
        for key, value in schema.items()
    }
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved
