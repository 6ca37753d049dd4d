"""Extraction of the JSON value from the text of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from mes.strict_json import NotJson, parse_json
from mes.structured.keywords import ITEMS
from mes.structured.schema_tree import SchemaNode

_FENCE = "```"
_OPENING_BRACKET = re.compile(r"[\[{]")
_THOUGHT_BEGIN, _THOUGHT_END = "<think>", "</think>"
_MOST_CHARACTERS = 512 * 1024
_MOST_FENCES = 32
_MOST_IN_PROSE = 256
# References that a value's type may depend on; recursion ends there.
_MOST_LEVELS = 16
_DECODER = json.JSONDecoder()
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "null": (type(None),),
    "boolean": (bool,),
    "number": (int, float),
    "integer": (int, float),
}

Fits = Callable[[Any], bool]


class ExtractedValue(NamedTuple):
    """A JSON value and where in the text it was: `whole`, in a `fence` or in `prose`."""

    value: Any
    source: str


def extract(text: str, fits: Fits = lambda value: True) -> ExtractedValue:
    """Return the JSON value in a model's answer, in linear time.

    It is the whole text, the content of a Markdown fence, or an object or array in prose: the first
    of these that fits. If none fits, the first is returned. A thought contains no answer.

    Raises:
        NotJson: the text contains no JSON value; the message is about the text as a whole.
    """
    text = text.strip().lstrip("\ufeff")
    if len(text) > _MOST_CHARACTERS:
        raise NotJson(f"longer than {_MOST_CHARACTERS} characters")
    try:
        return ExtractedValue(parse_json(text), "whole")
    except NotJson as exc:
        found = _first_that_fits(_without_thoughts(text), fits)
        if found is None:
            raise exc
        return found


def is_json(text: str) -> bool:
    """Return whether the whole text is a JSON value."""
    try:
        return extract(text).source == "whole"
    except NotJson:
        return False


def _first_that_fits(text: str, fits: Fits) -> ExtractedValue | None:
    first = None
    for candidate, source in _candidates(text):
        try:
            found = ExtractedValue(parse_json(candidate), source)
        except NotJson:
            continue
        if fits(found.value):
            return found
        first = first or found
    return first


def _without_thoughts(text: str) -> str:
    """Return the text after the last thought, or before a thought that does not end."""
    _, end_tag, answer = text.rpartition(_THOUGHT_END)
    return answer if end_tag else text.partition(_THOUGHT_BEGIN)[0]


def _candidates(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of the text that may be JSON, each with its source."""
    for fenced in text.split(_FENCE, 2 * _MOST_FENCES)[1:-1:2]:
        language, newline, content = fenced.partition("\n")
        if newline and language.strip().lower() in ("", "json"):
            yield content.strip(), "fence"
    for found in islice(_in_prose(text), _MOST_IN_PROSE):
        yield found, "prose"


def _in_prose(text: str) -> Iterator[str]:
    """Yield the parts of the text that are JSON objects or arrays, none inside another."""
    budget, end = len(text), 0
    for bracket in _OPENING_BRACKET.finditer(text):
        start = bracket.start()
        if start < end:
            continue
        try:
            _, end = _DECODER.raw_decode(text, start)
            yield text[start:end]
        except json.JSONDecodeError as exc:
            # The text is read again from each bracket, and the error counts the lines before it.
            budget -= exc.pos - start + exc.pos // 16
        except (ValueError, RecursionError):
            return
        if budget < 0:
            return


def fits_type(node: SchemaNode, value: Any, levels: int = _MOST_LEVELS) -> bool:
    """Return whether the value has a type that the schema allows; False only if it has not.

    Of an array, the first item is looked at too: a citation such as [1] is no list of objects.
    """
    if levels == 0 or isinstance(node.schema, bool):
        return node.schema is not False
    if not _has_type(node.keywords, value):
        return False
    needed, alternatives = _in_place(node, "allOf"), _in_place(node, "anyOf", "oneOf")
    if not all(fits_type(each, value, levels - 1) for each in (*node.references, *needed)):
        return False
    if alternatives and not any(fits_type(each, value, levels - 1) for each in alternatives):
        return False
    items = [child for part, child in node.children if part == ITEMS and child.path[-1] == "items"]
    return not (isinstance(value, list) and value and items) or all(
        fits_type(child, value[0], levels - 1) for child in items
    )


def _has_type(keywords: dict[str, Any], value: Any) -> bool:
    if "const" in keywords:
        return type(value) is type(keywords["const"])
    if "enum" in keywords:
        return any(type(value) is type(each) for each in keywords["enum"])
    allowed = keywords.get("type")
    if allowed is None:
        implied = "object" if "properties" in keywords or "required" in keywords else None
        allowed = implied or (
            "array" if {"items", "prefixItems"} & keywords.keys() else list(_TYPES)
        )
    names = [allowed] if isinstance(allowed, str) else allowed
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number:
        return "number" in names or "integer" in names
    return any(isinstance(value, _TYPES.get(name, ())) for name in names)


def _in_place(node: SchemaNode, *keywords: str) -> list[SchemaNode]:
    depth = len(node.path)
    return [child for _, child in node.children if child.path[depth : depth + 1][0] in keywords]
