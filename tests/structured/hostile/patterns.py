"""Patterns: those that need backtracking are rejected, all others are matched in linear time."""

from __future__ import annotations

import json

from tests.structured.hostile.case import (
    INVALID,
    JUDGED,
    NOT_AS_FORMAT,
    UNSAFE,
    Case,
    Schema,
    draft,
    judged,
    refused,
)

_BACKTRACKING = {
    "looks ahead": "a(?=b)",
    "looks ahead in vain": "^(?!admin).*$",
    "looks behind": "(?<=a)b",
    "looks behind in vain": "(?<!a)b",
    "repeats its group": r"(a+)\1",
    "looks ahead in a group in a group": "^(a|(b|(?=c)))$",
    "looks ahead and explodes": "^(?=(a+)+$)a",
}

_LOOK_AHEAD = "^(?!admin)"

_LOOKS_AHEAD_IN: dict[str, Schema] = {
    "patternProperties": {"patternProperties": {_LOOK_AHEAD: {}}},
    "propertyNames": {"propertyNames": {"pattern": _LOOK_AHEAD}},
    "items": {"items": {"pattern": _LOOK_AHEAD}},
    "not": {"not": {"pattern": _LOOK_AHEAD}},
    "dependentSchemas": {"dependentSchemas": {"a": {"pattern": _LOOK_AHEAD}}},
    "a place that only a reference reaches": {"foo": {"pattern": _LOOK_AHEAD}, "$ref": "#/foo"},
    "draft 4": draft("draft-04", items={"patternProperties": {_LOOK_AHEAD: {}}}),
}

_EXPLODING = {
    "a plus of a plus": "^(a+)+$",
    "a choice that overlaps": "^(a|aa)+$",
    "a star of a star": "^(a*)*b$",
    "twenty dots": "^(.*a){20}b$",
    "thirty optional letters": "^(a?){30}a{31}b$",
    "words and blanks": r"^(\w+\s?)*\?$",
    "two pluses": "(a+a+)+b",
    "an address": r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}$",
    "a long count": "^(a{1,40}){1,40}b$",
}

_P = "^(a+)+$"
_ALMOST = "a" * 5_000 + "!"
_KEY = {_ALMOST: 1}

_EXPLODES_IN: dict[str, tuple[Schema, object]] = {
    "patternProperties": ({"patternProperties": {_P: {}, "!$": False}}, _KEY),
    "additionalProperties": (
        {"patternProperties": {_P: {}}, "additionalProperties": False},
        _KEY,
    ),
    "additionalProperties of draft 4": (
        draft("draft-04", patternProperties={_P: {}}, additionalProperties=False),
        _KEY,
    ),
    "propertyNames": ({"propertyNames": {"pattern": _P}}, _KEY),
    "unevaluatedProperties": (
        {"anyOf": [{"patternProperties": {_P: {}}}], "unevaluatedProperties": False},
        _KEY,
    ),
    "items": ({"items": {"pattern": _P}}, [_ALMOST] * 20),
    "prefixItems": ({"prefixItems": [{"pattern": _P}]}, [_ALMOST]),
    "contains": ({"contains": {"pattern": _P}}, [_ALMOST] * 20),
    "unevaluatedItems": ({"unevaluatedItems": {"pattern": _P}}, [_ALMOST]),
    "not": ({"not": {"not": {"pattern": _P}}}, _ALMOST),
    "if": ({"if": {"pattern": _P}, "else": False}, _ALMOST),
    "anyOf": ({"anyOf": [{"pattern": _P}, {"pattern": "^(a|aa)+$"}]}, _ALMOST),
    "oneOf": ({"oneOf": [{"pattern": _P}, {"pattern": "^(a|aa)+$"}]}, _ALMOST),
    "allOf": ({"allOf": [{"pattern": _P}]}, _ALMOST),
    "dependentSchemas": (
        {"dependentSchemas": {_ALMOST: {"propertyNames": {"pattern": _P}}}},
        _KEY,
    ),
    "a reference to an unknown keyword": ({"foo": {"pattern": _P}, "$ref": "#/foo"}, _ALMOST),
}

# Some dialects of regular expressions allow these; the converter crashes or hangs on them.
_DOUBTFUL = {
    "repeats the beginning": "^*a$",
    "repeats the beginning twice": "^{2}$",
    "repeats the beginning in a group": "^(^)*a$",
    "repeats the end": "^a$*$",
    "repeats a border of words": r"^\b+a$",
    "repeats a repetition": "^a{1,2}{3,4}$",
    "counts below nothing": "^a{-1}$",
}

# Short patterns with a large compiled form: megabytes for a dozen characters.
_INFLATED = {
    "counts of counts of counts": "((a{100}){100}){100}",
    "counts of counts": "^(a{0,1000}){0,1000}$",
    "all letters a thousand times": r"\p{L}{1000}",
    "all letters very often": r"^[\p{L}\p{N}]{0,100000}$",
    "a large count": "^a{1000000}$",
    "600 groups": "(" * 600 + "a" + ")" * 600,
}

CASES = {
    **refused(UNSAFE, {name: {"pattern": text} for name, text in _BACKTRACKING.items()}),
    **refused(UNSAFE, {f"looks ahead in {place}": x for place, x in _LOOKS_AHEAD_IN.items()}),
    **{
        f"explodes: {name}": judged({"pattern": text}, f'"{_ALMOST}"', "schema_violation")
        for name, text in _EXPLODING.items()
    },
    **{
        f"explodes in {place}": judged(schema, json.dumps(answer), "schema_violation")
        for place, (schema, answer) in _EXPLODES_IN.items()
    },
    **{
        f"unused: {name}": Case({"$defs": {"a": {"pattern": text}}}, (INVALID, UNSAFE, JUDGED))
        for name, text in {"broken": "[", "looks ahead": _LOOK_AHEAD}.items()
    },
    "repeats its group by name": Case({"pattern": r"(?<x>a+)\k<x>"}, (INVALID, UNSAFE)),
    "inflates in the answer": judged({"format": "regex"}, '"((a{99}){99}){99}"'),
    **{
        name: Case({"type": "string", "pattern": text}, (INVALID, NOT_AS_FORMAT), '"a"')
        for name, text in _DOUBTFUL.items()
    },
    **{
        f"inflates: {name}": Case({"pattern": text}, (INVALID, UNSAFE, JUDGED), f'"{_ALMOST}"')
        for name, text in _INFLATED.items()
    },
}
