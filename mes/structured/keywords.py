"""Keywords that contain sub-schemas, and the part of a value to which those apply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# The part of the value to which a sub-schema applies: the same value as the schema around it,
IN_PLACE = "in place"
# the values of an object's properties, their names, the items of an array,
PROPERTY_VALUES = "property values"
PROPERTY_NAMES = "property names"
ITEMS = "items"
# or no part, unless a reference leads to the sub-schema.
DEFINITION = "definition"

# The value of an applicator is a schema, a list of schemas or an object of schemas; some
# applicators allow two of these forms.
_APPLICATORS = {
    "allOf": IN_PLACE,
    "anyOf": IN_PLACE,
    "oneOf": IN_PLACE,
    "not": IN_PLACE,
    "if": IN_PLACE,
    "then": IN_PLACE,
    "else": IN_PLACE,
    "properties": PROPERTY_VALUES,
    "patternProperties": PROPERTY_VALUES,
    "additionalProperties": PROPERTY_VALUES,
    "unevaluatedProperties": PROPERTY_VALUES,
    "propertyNames": PROPERTY_NAMES,
    "items": ITEMS,
    "prefixItems": ITEMS,
    "additionalItems": ITEMS,
    "unevaluatedItems": ITEMS,
    "contains": ITEMS,
    "dependentSchemas": IN_PLACE,
    "dependencies": IN_PLACE,
    "$defs": DEFINITION,
    "definitions": DEFINITION,
    "contentSchema": DEFINITION,
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
    """A sub-schema directly below a schema, with its path relative to that schema."""

    applies_to: str
    path: tuple[PathStep, ...]
    schema: Any

    @property
    def keyword(self) -> str:
        return str(self.path[0])


def subschemas(schema: dict[str, Any]) -> Iterator[Subschema]:
    """Yield the sub-schemas directly below a schema, booleans included."""
    for keyword, value in schema.items():
        if keyword in _APPLICATORS:
            yield from _subschemas_of_keyword(keyword, value)


def _subschemas_of_keyword(keyword: str, value: Any) -> Iterator[Subschema]:
    found: list[tuple[tuple[PathStep, ...], Any]] = [((keyword,), value)]
    if isinstance(value, list):
        found = [((keyword, index), each) for index, each in enumerate(value)]
    elif isinstance(value, dict) and keyword in _BY_NAME:
        found = [((keyword, name), each) for name, each in value.items()]
    applies_to = _APPLICATORS[keyword]
    return (
        Subschema(applies_to, path, each) for path, each in found if isinstance(each, dict | bool)
    )


def patterns(schema: dict[str, Any]) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    """Yield the path and the text of each regular expression directly in a schema."""
    if isinstance(schema.get("pattern"), str):
        yield ("pattern",), schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        for pattern in schema["patternProperties"]:
            yield ("patternProperties", pattern), pattern


def is_applicator(keyword: str) -> bool:
    """Return whether the keyword contains sub-schemas."""
    return keyword in _APPLICATORS
