"""Conversion: what llama.cpp's converter makes of one sub-schema.

Facts: `common/json-schema-to-grammar.cpp` as of August and October 2026, read and probed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeGuard

from mes.structured.patterns import repeats_nothing
from mes.structured.schema_tree import SchemaNode

ENFORCED = "enforced"
IGNORED = "ignored"
# The runtime answers 400 before any token is spent.
REFUSED = "refused"
# Valid answers cannot be written under the grammar: some, or none at all.
DISTORTED = "distorted"
EXCLUDED = "excluded"
# The converter crashes or never ends, or decoding ends nowhere.
FATAL = "fatal"


class Effect(NamedTuple):
    """What becomes of a keyword."""

    keyword: str
    kind: str
    reason: str = ""


Keywords = dict[str, Any]
Effects = Iterator[Effect]

# The first of these that is there hides all that stands beside it.
_GOVERNING = ("$ref", "oneOf", "anyOf", "const", "enum")
_SILENT = {
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$defs",
    "definitions", "$vocabulary", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip
_NEVER_READ = {
    "multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then",
    "else", "dependentRequired", "dependentSchemas", "dependencies", "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties",
    "unevaluatedItems", "additionalItems", "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_READ_ON = {"properties", "additionalProperties", "items", "prefixItems", "allOf"}
_FORMATS = {"date", "time", "date-time", "uuid"}
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MOST_REPETITIONS = 2000

# Escapes and groups that make the runtime refuse the grammar.
_UNREADABLE_IN_PATTERN = re.compile(r"\\[^\[\](){}^$.|*+?\\\"nrt]|\(\?[^:]")
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def convert_keywords(place: SchemaNode) -> Effects:
    """What becomes of each keyword of the sub-schema."""
    keywords = place.keywords
    if isinstance(place.schema, bool):
        yield Effect(str(place.schema).lower(), REFUSED, "a schema that is true or false")
        return
    governing = _governing(keywords)
    for keyword in keywords.keys() - _SILENT:
        if keyword in _NEVER_READ:
            yield Effect(keyword, IGNORED, "the grammar cannot express it")
        elif governing is not None and keyword not in (governing, "type"):
            yield Effect(keyword, IGNORED, f"stands beside {governing}")
        elif keyword in _RULES:
            yield from _RULES[keyword](keywords)
    yield from _contradictions(keywords)


def converted_below(place: SchemaNode) -> list[SchemaNode]:
    """The sub-schemas that the converter reads on from this one."""
    governing = _governing(place.keywords)
    if governing == "$ref":
        return place.references
    read = {governing} if governing else set(_READ_ON)
    if "properties" in place.keywords:
        read.discard("allOf")
    depth = len(place.path)
    return [
        below
        for _, below in place.below
        if below.path[:depth] == place.path
        and below.path[depth] in read
        and not (below.path[depth] == "additionalProperties" and isinstance(below.schema, bool))
    ]


def _governing(keywords: Keywords) -> str | None:
    return next((each for each in _GOVERNING if each in keywords), None)


def _reference(keywords: Keywords) -> Effects:
    reference = keywords["$ref"]
    if reference.startswith("#/") and "~" not in reference and "%" not in reference:
        yield Effect("$ref", ENFORCED)
    else:
        yield Effect("$ref", REFUSED, "only plain #/... references are read")


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


def _required_names(keywords: Keywords) -> Effects:
    missing = set(_required(keywords)) - keywords.get("properties", {}).keys()
    if not missing:
        yield Effect("required", ENFORCED)
    elif "properties" in keywords and not keywords.get("additionalProperties"):
        yield Effect("required", DISTORTED, "names a property that is not declared")
    else:
        yield Effect("required", IGNORED, "names a property that is not declared")


def optional_properties(place: SchemaNode) -> int:
    """How many properties may be left out; the grammar grows with the square of that."""
    return len(place.keywords.get("properties", {}).keys() - set(_required(place.keywords)))


def _required(keywords: Keywords) -> list[str]:
    required = keywords.get("required")
    return required if isinstance(required, list) else []


def _all_of(keywords: Keywords) -> Effects:
    if "properties" in keywords:
        yield Effect("allOf", IGNORED, "stands beside properties")
    elif any(_says_what_to_write(each) for each in keywords["allOf"]):
        yield Effect("allOf", ENFORCED)
    else:
        yield Effect("allOf", DISTORTED, "only constrains, which the grammar reads as {}")


def _says_what_to_write(schema: Any) -> bool:
    return isinstance(schema, dict) and bool(
        schema.keys() & {"properties", "additionalProperties", "allOf", *_GOVERNING}
    )


def _item_count(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        if isinstance(keywords.get("items"), dict) and "prefixItems" not in keywords:
            yield _bounded(keyword, keywords[keyword])
        else:
            yield Effect(keyword, IGNORED, "counts only where items is one schema")

    return rule


def _length(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        plain = "pattern" not in keywords and keywords.get("format") not in _FORMATS
        if keywords.get("type") == "string" and plain:
            yield _bounded(keyword, keywords[keyword])
        else:
            yield Effect(keyword, IGNORED, "counts only for a string without pattern or format")

    return rule


def _bounded(keyword: str, count: float) -> Effect:
    if count < _MOST_REPETITIONS:
        return Effect(keyword, ENFORCED)
    if keyword.startswith("max") and count > _MOST_REPETITIONS:
        return Effect(keyword, IGNORED, f"is over {_MOST_REPETITIONS}")
    return Effect(keyword, REFUSED, f"is {_MOST_REPETITIONS} or more")


def _bound(keyword: str) -> Callable[[Keywords], Effects]:
    def rule(keywords: Keywords) -> Effects:
        if keywords.get("type") == "integer" and not isinstance(keywords[keyword], bool):
            yield Effect(keyword, ENFORCED)
        else:
            yield Effect(keyword, IGNORED, "counts only for an integer")

    return rule


def _pattern(keywords: Keywords) -> Effects:
    pattern = keywords["pattern"]
    counts = [int(each) for pair in _COUNT.findall(pattern) for each in pair if each]
    if repeats_nothing(pattern):
        yield Effect("pattern", FATAL, "repeats nothing")
    elif not (pattern.startswith("^") and pattern.endswith("$")):
        yield Effect("pattern", REFUSED, "does not start with ^ and end with $")
    elif _UNREADABLE_IN_PATTERN.search(pattern) or max(counts, default=0) >= _MOST_REPETITIONS:
        yield Effect("pattern", REFUSED, "has an escape, group or count that is not read")
    else:
        yield Effect("pattern", ENFORCED)


def _format(keywords: Keywords) -> Effects:
    if keywords["format"] in _FORMATS:
        yield Effect("format", ENFORCED)
    else:
        yield Effect("format", IGNORED, "only date, time, date-time and uuid are read")


def _contradictions(keywords: Keywords) -> Effects:
    """Bounds that nothing fits: the converter never ends, or decoding ends nowhere."""
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        if keywords.get(least, 0) > keywords.get(most, math.inf):
            yield Effect(least, FATAL, f"is more than {most}")
    if keywords.get("type") == "integer" and _lowest(keywords) > _highest(keywords):
        yield Effect("minimum", FATAL, "leaves no integer below the maximum")


def _lowest(keywords: Keywords) -> float:
    """The least integer within the bounds."""
    exclusive = keywords.get("exclusiveMinimum")
    above = math.floor(exclusive) + 1 if _is_number(exclusive) else -math.inf
    return max(above, math.ceil(keywords["minimum"]) if "minimum" in keywords else -math.inf)


def _highest(keywords: Keywords) -> float:
    exclusive = keywords.get("exclusiveMaximum")
    below = math.ceil(exclusive) - 1 if _is_number(exclusive) else math.inf
    return min(below, math.floor(keywords["maximum"]) if "maximum" in keywords else math.inf)


def _is_number(value: Any) -> TypeGuard[float]:
    # In draft 4 the exclusive bounds are true or false.
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    "required": _required_names,
    "allOf": _all_of,
    "items": _always("items"),
    "prefixItems": _always("prefixItems"),
    "minItems": _item_count("minItems"),
    "maxItems": _item_count("maxItems"),
    "minLength": _length("minLength"),
    "maxLength": _length("maxLength"),
    "pattern": _pattern,
    "format": _format,
    **{keyword: _bound(keyword) for keyword in _NUMBER_BOUNDS},
}
