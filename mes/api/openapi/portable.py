"""The document in forms that client generators can read.

JSON Schema has more forms than the classes that generators make: an enumeration of objects or
booleans, or a type that is text or a list, becomes code that does not compile. Each function here
restates one such form; the values that the document allows stay the same or become more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}

# The keywords that go with a type into its own alternative; all others describe the whole.
_KEYWORDS_OF_TYPE = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
# Their values are data of the API and not parts of the document.
_DATA = {"example", "examples", "default", "const", "enum"}
# Their values are mappings from names, which may be those of keywords.
_MAPPINGS = {"properties", "schemas"}


def portable(document: Schema) -> Schema:
    """Return the OpenAPI document with every schema in a form that generators can read."""
    return _restated_values(document)


def _restated(node: Any) -> Any:
    if isinstance(node, list):
        return [_restated(each) for each in node]
    if not isinstance(node, dict):
        return node
    restated = _restated_values(node)
    for restate in _STEPS:
        restated = restate(restated)
    return restated


def _restated_values(node: Schema) -> Schema:
    return {key: _restated_value(key, value) for key, value in node.items()}


def _restated_value(key: str, value: Any) -> Any:
    if key in _DATA:
        return value
    if key in _MAPPINGS:
        return {name: _restated(each) for name, each in value.items()}
    return _restated(value)


def _without_odd_enum(schema: Schema) -> Schema:
    """Replace an enumeration of other values than texts by the types of its values."""
    values = schema.get("enum")
    if not isinstance(values, list) or all(isinstance(each, str | None) for each in values):
        return schema
    kinds = [_JSON_TYPES[type(each)] for each in values if each is not None]
    nullable = ["null"] if None in values else []
    return {"type": _one_or_all([*dict.fromkeys(kinds), *nullable]), **_without(schema, {"enum"})}


def _without_null_enum(schema: Schema) -> Schema:
    """Allow any value where only null is allowed: no class can be made for null alone."""
    return _without(schema, {"enum"}) if schema.get("enum") == [None] else schema


def _with_alternatives(schema: Schema) -> Schema:
    """Replace a list of types, one of them a list or an object, by an alternative for each type."""
    kinds = schema.get("type")
    if not isinstance(kinds, list) or not {"array", "object"} & set(kinds) or len(kinds) == 1:
        return schema
    keywords = set().union(*(_KEYWORDS_OF_TYPE.get(kind, set()) for kind in kinds))
    alternatives = [_alternative(kind, schema) for kind in kinds]
    return {**_without(schema, {"type", *keywords}), "anyOf": alternatives}


def _alternative(kind: str, schema: Schema) -> Schema:
    keywords = _KEYWORDS_OF_TYPE.get(kind, set())
    own = {key: value for key, value in schema.items() if key in keywords}
    return _with_inner_schema({"type": kind, **own})


def _with_inner_schema(schema: Schema) -> Schema:
    """Add the schema of the items of a list, or of the members of an object, if there is none."""
    if schema.get("type") == "array":
        return {"items": {}, **schema}
    if schema.get("type") == "object" and not {"properties", "additionalProperties"} & set(schema):
        return {**schema, "additionalProperties": True}
    return schema


_STEPS: tuple[Callable[[Schema], Schema], ...] = (
    _without_null_enum,
    _without_odd_enum,
    _with_alternatives,
    _with_inner_schema,
)


def _one_or_all(kinds: list[str]) -> str | list[str]:
    return kinds[0] if len(kinds) == 1 else kinds


def _without(schema: Mapping[str, Any], keys: set[str]) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys}
