"""The effect of each keyword in the grammar to which llama.cpp converts a schema.

The facts are from reading and probing `common/json-schema-to-grammar.cpp` as of August and
October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mes.structured.grammar_effects import (
    DISTORTED,
    ENFORCED,
    FATAL,
    IGNORED,
    REFUSED,
    WITHOUT_EFFECT,
    Effect,
    Effects,
    Keywords,
    contradictions,
    required_properties,
    undeclared_properties,
)
from mes.structured.keywords import most_repetitions, repeats_empty_match
from mes.structured.schema_tree import SchemaNode

# The converter reads the first of these that is present, and ignores all keywords beside it.
_GOVERNING = ("$ref", "oneOf", "anyOf", "const", "enum")
_NEVER_READ = {
    "multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then",
    "else", "dependentRequired", "dependentSchemas", "dependencies", "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties",
    "unevaluatedItems", "additionalItems", "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_READ = {"properties", "additionalProperties", "items", "prefixItems", "allOf"}
_FORMATS = {"date", "time", "date-time", "uuid"}
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MOST_REPETITIONS = 2000

# Escapes and groups because of which the runtime refuses the grammar.
_UNREADABLE_IN_PATTERN = re.compile(r"\\[^\[\](){}^$.|*+?\\\"nrt]|\(\?[^:]")


def convert_keywords(node: SchemaNode) -> Effects:
    """Yield the effect of each keyword of the sub-schema."""
    keywords = node.keywords
    if isinstance(node.schema, bool):
        yield Effect(str(node.schema).lower(), REFUSED, "a schema that is true or false")
        return
    governing = _governing(keywords)
    for keyword in keywords.keys() - WITHOUT_EFFECT:
        if keyword in _NEVER_READ:
            yield Effect(keyword, IGNORED, "the grammar cannot express it")
        elif governing is not None and keyword not in (governing, "type"):
            yield Effect(keyword, IGNORED, f"stands beside {governing}")
        elif keyword in _RULES:
            yield from _RULES[keyword](keywords)
    yield from contradictions(keywords)


def converted_children(node: SchemaNode) -> list[SchemaNode]:
    """Return the sub-schemas that the converter reads after this one."""
    governing = _governing(node.keywords)
    if governing == "$ref":
        return node.references
    read = {governing} if governing else set(_READ)
    if "properties" in node.keywords:
        read.discard("allOf")
    depth = len(node.path)
    return [
        child
        for _, child in node.children
        if child.path[:depth] == node.path
        and child.path[depth] in read
        and not (child.path[depth] == "additionalProperties" and isinstance(child.schema, bool))
    ]


def optional_properties(node: SchemaNode) -> int:
    """Return the number of optional properties. The grammar grows with its square."""
    return len(node.keywords.get("properties", {}).keys() - set(required_properties(node.keywords)))


def _governing(keywords: Keywords) -> str | None:
    return next((each for each in _GOVERNING if each in keywords), None)


def _reference(keywords: Keywords) -> Effects:
    reference = keywords["$ref"]
    if reference.startswith("#/") and "~" not in reference and "%" not in reference:
        yield Effect("$ref", ENFORCED)
    else:
        yield Effect("$ref", REFUSED, "only references of the form #/... are read")


def _one_of(keywords: Keywords) -> Effects:
    yield Effect("oneOf", IGNORED, "read as anyOf: an answer may fit several alternatives")


def _enum(keywords: Keywords) -> Effects:
    if keywords["enum"]:
        yield Effect("enum", ENFORCED)
    else:
        yield Effect("enum", FATAL, "has no values")


def _properties(keywords: Keywords) -> Effects:
    yield Effect("properties", ENFORCED)
    if "$ref" in keywords["properties"]:
        yield Effect("properties", REFUSED, "a property called $ref is read as a reference")


def _required_properties(keywords: Keywords) -> Effects:
    if not undeclared_properties(keywords):
        yield Effect("required", ENFORCED)
    elif "properties" in keywords and not keywords.get("additionalProperties"):
        yield Effect("required", DISTORTED, "names a property that is not declared")
    else:
        yield Effect("required", IGNORED, "names a property that is not declared")


def _all_of(keywords: Keywords) -> Effects:
    if "properties" in keywords:
        yield Effect("allOf", IGNORED, "stands beside properties")
    elif any(_is_generative(each) for each in keywords["allOf"]):
        yield Effect("allOf", ENFORCED)
    else:
        yield Effect("allOf", DISTORTED, "only adds constraints, which the grammar reads as {}")


def _is_generative(schema: Any) -> bool:
    """Return whether the grammar generates text for the schema, and does not only constrain it."""
    return isinstance(schema, dict) and bool(
        schema.keys() & {"properties", "additionalProperties", "allOf", *_GOVERNING}
    )


def _item_count(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        if isinstance(keywords.get("items"), dict) and "prefixItems" not in keywords:
            yield _count_effect(keyword, keywords[keyword])
        else:
            yield Effect(keyword, IGNORED, "is enforced only if items is one schema")

    return rule


def _length(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        is_plain = "pattern" not in keywords and keywords.get("format") not in _FORMATS
        if keywords.get("type") == "string" and is_plain:
            yield _count_effect(keyword, keywords[keyword])
        else:
            yield Effect(keyword, IGNORED, "is enforced only for strings without pattern or format")

    return rule


def _count_effect(keyword: str, count: float) -> Effect:
    if count < _MOST_REPETITIONS:
        return Effect(keyword, ENFORCED)
    if keyword.startswith("max") and count > _MOST_REPETITIONS:
        return Effect(keyword, IGNORED, f"is over {_MOST_REPETITIONS}")
    return Effect(keyword, REFUSED, f"is {_MOST_REPETITIONS} or more")


def _number_bound(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        if keywords.get("type") == "integer" and not isinstance(keywords[keyword], bool):
            yield Effect(keyword, ENFORCED)
        else:
            yield Effect(keyword, IGNORED, "is enforced only for an integer")

    return rule


def _pattern(keywords: Keywords) -> Effects:
    pattern = keywords["pattern"]
    if repeats_empty_match(pattern):
        yield Effect("pattern", FATAL, "repeats a part that may be empty")
    elif not (pattern.startswith("^") and pattern.endswith("$")):
        yield Effect("pattern", REFUSED, "does not start with ^ and end with $")
    elif _UNREADABLE_IN_PATTERN.search(pattern) or most_repetitions(pattern) >= _MOST_REPETITIONS:
        yield Effect("pattern", REFUSED, "has an escape, group or count that cannot be read")
    else:
        yield Effect("pattern", ENFORCED)


def _format(keywords: Keywords) -> Effects:
    if keywords["format"] in _FORMATS:
        yield Effect("format", ENFORCED)
    else:
        yield Effect("format", IGNORED, "only date, time, date-time and uuid are read")


def _always(keyword: str) -> Callable[[Keywords], Effects]:
    return lambda keywords: iter([Effect(keyword, ENFORCED)])


_RULES: dict[str, Callable[[Keywords], Effects]] = {
    "$ref": _reference,
    "oneOf": _one_of,
    "anyOf": _always("anyOf"),
    "const": _always("const"),
    "enum": _enum,
    "type": _always("type"),
    "properties": _properties,
    "additionalProperties": _always("additionalProperties"),
    "required": _required_properties,
    "allOf": _all_of,
    "items": _always("items"),
    "prefixItems": _always("prefixItems"),
    "minItems": _item_count("minItems"),
    "maxItems": _item_count("maxItems"),
    "minLength": _length("minLength"),
    "maxLength": _length("maxLength"),
    "pattern": _pattern,
    "format": _format,
    **{keyword: _number_bound(keyword) for keyword in _NUMBER_BOUNDS},
}
