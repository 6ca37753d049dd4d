"""Keywords: which of them hold sub-schemas, and which part of a value those apply to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# To the same value as the schema around it.
IN_PLACE = "in place"
# To the members of an object, to its names, to the elements of an array.
MEMBERS = "members"
NAMES = "names"
ELEMENTS = "elements"
# To nothing until a reference says so.
NOWHERE = "nowhere"

# A keyword holds one schema, a list of them, or an object of them; some take two of these forms.
_HOLDERS = {
    "allOf": IN_PLACE,
    "anyOf": IN_PLACE,
    "oneOf": IN_PLACE,
    "not": IN_PLACE,
    "if": IN_PLACE,
    "then": IN_PLACE,
    "else": IN_PLACE,
    "properties": MEMBERS,
    "patternProperties": MEMBERS,
    "additionalProperties": MEMBERS,
    "unevaluatedProperties": MEMBERS,
    "propertyNames": NAMES,
    "items": ELEMENTS,
    "prefixItems": ELEMENTS,
    "additionalItems": ELEMENTS,
    "unevaluatedItems": ELEMENTS,
    "contains": ELEMENTS,
    "dependentSchemas": IN_PLACE,
    "dependencies": IN_PLACE,
    "$defs": NOWHERE,
    "definitions": NOWHERE,
    "contentSchema": NOWHERE,
}
_BY_NAME = {
    "properties",
    "patternProperties",
    "dependentSchemas",
    "dependencies",
    "$defs",
    "definitions",
}
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

PathStep = str | int


class Subschema(NamedTuple):
    """A sub-schema directly below another one."""

    where: str
    path: tuple[PathStep, ...]
    schema: Any

    @property
    def keyword(self) -> str:
        return str(self.path[0])


def subschemas(schema: dict[str, Any]) -> Iterator[Subschema]:
    """The sub-schemas directly below a schema; booleans among them."""
    for keyword, value in schema.items():
        if keyword in _HOLDERS:
            yield from _held(keyword, _HOLDERS[keyword], value)


def _held(keyword: str, where: str, value: Any) -> Iterator[Subschema]:
    found: list[tuple[tuple[PathStep, ...], Any]] = [((keyword,), value)]
    if isinstance(value, list):
        found = [((keyword, place), each) for place, each in enumerate(value)]
    elif isinstance(value, dict) and keyword in _BY_NAME:
        found = [((keyword, name), each) for name, each in value.items()]
    return (Subschema(where, path, each) for path, each in found if isinstance(each, dict | bool))


def patterns(schema: dict[str, Any]) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    """The regular expressions directly in a schema, with where they stand."""
    if isinstance(schema.get("pattern"), str):
        yield ("pattern",), schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        for pattern in schema["patternProperties"]:
            yield ("patternProperties", pattern), pattern


def is_holder(keyword: str) -> bool:
    """Does this keyword hold sub-schemas?"""
    return keyword in _HOLDERS
