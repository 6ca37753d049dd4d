"""Grammars that constrain a model's answer to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mes.embedded.api_errors import RuntimeFailure
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.grammar_check import refused_schema, verify

Schema = dict[str, Any]
ANY_OBJECT: Schema = {"type": "object"}
COMPOSING = {"allOf", "anyOf", "oneOf", "if", "not", "$ref", "patternProperties"}
NESTED = {"items", "prefixItems", "additionalProperties", "anyOf", "oneOf"}
NESTED_BY_NAME = {"properties", "$defs", "definitions"}
NAMED = {*NESTED_BY_NAME, "patternProperties", "dependentSchemas"}
# Without `lenient` one unknown keyword or format would make the engine refuse the whole schema.
_GUIDANCE = {"coerce_one_of": True, "lenient": True}
# The engine makes about five symbols for each item that an array may have: 50,000 items take 1.5 s
# and 110 MB, 2,147,483,647 take all memory.
MOST_ITEMS = 10_000
MOST_ITEMS_TOGETHER = 50_000


class BadFormat(RuntimeFailure):
    """The request's `format` is invalid; like Ollama, answered with status 500."""


def parse_format(value: Any) -> Schema | None:
    """Return the schema of a request's `format`, None for free text. Raise `BadFormat`."""
    if value is None or value == "":
        return None
    if value == "json":
        return ANY_OBJECT
    if isinstance(value, dict):
        return value or ANY_OBJECT
    quoted = json.dumps(json.dumps(value))
    raise BadFormat(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')


def grammar_for(schema: Schema, engine: Engine, client: ClientConnection) -> str:
    """Return the value of the engine's `grammar` field that enforces `schema`.

    Raise `EngineRefused` if the engine cannot compile the schema.
    """
    rule = f"%json {json.dumps(_normalize_schema(_limit_items(schema)))}"
    verify(rule, engine, client)
    return f"%llguidance {{}}\nstart: {rule}"


def _limit_items(schema: Schema) -> Schema:
    """Return a copy without each `maxItems` that no answer can reach.

    Raise `EngineRefused` if the other counts of items are too large for the engine.
    """
    copy: Schema = json.loads(json.dumps(schema))
    together: float = 0
    for node in _objects_in(copy):
        if _number(node, "maxItems") > MOST_ITEMS:
            del node["maxItems"]
        if (least := _number(node, "minItems")) > MOST_ITEMS:
            raise refused_schema(f"minItems is {least}, the limit is {MOST_ITEMS}")
        together += max(0, least, _number(node, "maxItems"))
    if together > MOST_ITEMS_TOGETHER:
        reason = f"all maxItems and minItems are {together} together"
        raise refused_schema(f"{reason}, the limit is {MOST_ITEMS_TOGETHER}")
    return copy


def _objects_in(document: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects of the document except those in `const` and `enum`, which are data."""
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            yield node
            for name, value in node.items():
                if name in NAMED and isinstance(value, dict):
                    stack += value.values()  # a name of a property is no keyword
                elif name not in ("enum", "const"):
                    stack.append(value)


def _number(node: dict[str, Any], keyword: str) -> float:
    value = node.get(keyword)
    return value if isinstance(value, int | float) else 0


def _normalize_schema(schema: Schema) -> Schema:
    """Return `schema` as Ollama interprets it.

    `oneOf` counts as `anyOf`. Properties that are not declared are excluded unless the schema
    allows them: left free, a small model adds properties until it runs out of tokens.
    """
    try:
        closed = schema if _composes(schema) else _close(schema)
    except (AttributeError, RecursionError):
        closed = schema  # malformed: the engine's error names the reason
    return {**closed, "x-guidance": _GUIDANCE}


def _composes(node: Any) -> bool:
    """Return whether closing an object could contradict another that describes the same value."""
    if isinstance(node, list):
        return any(map(_composes, node))
    if not isinstance(node, dict):
        return False
    beside = "properties" in node and COMPOSING.intersection(node)
    return bool("allOf" in node or beside or any(map(_composes, node.values())))


def _close(node: Any) -> Any:
    """Return `node` with `additionalProperties: false` in each object that leaves it out."""
    if isinstance(node, list):
        return [_close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = dict(node)
    for key in NESTED.intersection(node):
        closed[key] = _close(node[key])
    for key in NESTED_BY_NAME.intersection(node):
        closed[key] = {name: _close(value) for name, value in node[key].items()}
    if "properties" in node and not set(node.get("required") or ()) - node["properties"].keys():
        closed.setdefault("additionalProperties", False)
    return closed
