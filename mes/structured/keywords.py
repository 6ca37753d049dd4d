"""Keywords of JSON Schema with sub-schemas, and the regular expressions in schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
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

_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|\{(?P<least>\d+)(?P<comma>,(?P<most>\d*))?\}|.",
    re.DOTALL,
)
# The compiled size of an atom that matches many characters, in literals. Measured with the Rust
# engine: a literal takes 0.2 us to compile, `.` about 5 us and `\p{L}` about 300 us.
_ANY = 25
_PROPERTY = 1_600


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


def inner_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the same sub-schemas as `subschemas`, without booleans and paths, in less time."""
    for keyword, value in schema.items():
        if keyword in _APPLICATORS:
            values: Iterable[Any] = value if isinstance(value, list) else (value,)
            if keyword in _BY_NAME and isinstance(value, dict):
                values = value.values()
            yield from (each for each in values if isinstance(each, dict))


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


def is_applicator(keyword: str) -> bool:
    """Return whether the keyword contains sub-schemas."""
    return keyword in _APPLICATORS


def patterns(schema: dict[str, Any]) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    """Yield the path and the text of each regular expression directly in a schema."""
    if isinstance(schema.get("pattern"), str):
        yield ("pattern",), schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        for pattern in schema["patternProperties"]:
            yield ("patternProperties", pattern), pattern


def weight(pattern: str) -> int:
    """Return the approximate compiled size of the pattern, in literals.

    The compiler expands counted repetitions, so `(a{100}){100}` weighs 10,000.
    """
    return _expand(pattern, _weight_of_atom, sum)


def most_repetitions(pattern: str) -> int:
    """Return how often a part is repeated at most by counts: 10,000 times in `(a{100}b){100}`."""
    return _expand(pattern, lambda atom: 1, lambda parts: max(parts, default=0))


def _expand(
    pattern: str, weigh: Callable[[str], int], combine: Callable[[Iterable[int]], int]
) -> int:
    """Return the combination of the parts of the pattern, each multiplied by its counts."""
    groups: list[list[int]] = [[]]
    for token in _TOKEN.finditer(pattern):
        text, parts = token[0], groups[-1]
        if text == "(":
            groups.append([])
        elif text == ")" and len(groups) > 1:
            groups.pop()
            groups[-1].append(combine(parts))
        elif token["least"] is None:
            parts.append(weigh(text))
        elif parts:
            parts[-1] *= max(int(token["most"] or 0), int(token["least"]), 1)
    return combine(combine(each) for each in groups)


def _weight_of_atom(atom: str) -> int:
    if "\\p" in atom or "\\P" in atom:
        return _PROPERTY
    if atom == "." or atom.startswith("[^") or atom in ("\\D", "\\W", "\\S"):
        return _ANY
    return 1


# Groups, quantifiers and anchors are kept. Any other piece matches a character or a word boundary.
_PIECE = re.compile(
    r"(?P<kept>\(\?(?:<?[=!]|:)|\{\d+(?:,\d*)?\}|[()|*+?^$])"
    r"|(?P<boundary>\\[bB])|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.",
    re.DOTALL,
)
_EMPTY = re.compile(
    r"\((?:\?:)?\^*\)|\(\?<?[=!][^)]*\)|\((?:\?:)?(?:a(?:[*?]|\{0[^}]*\}))+\)(?=[*+{])|\$"
)
_REPEATS_EMPTY = re.compile(r"(?:^|\^|\||\((?!\?))[*+?{]|[*+}][*+{]")


def repeats_empty_match(pattern: str) -> bool:
    """Return whether a repeated part can match no character, or is itself a repetition.

    Such a pattern sends llama.cpp's grammar into an endless loop.
    """
    shape = "".join(
        piece["kept"] or ("^" if piece["boundary"] else "a") for piece in _PIECE.finditer(pattern)
    )
    return bool(_REPEATS_EMPTY.search(_EMPTY.sub("^", shape)))
