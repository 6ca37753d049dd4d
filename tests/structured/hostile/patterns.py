"""Patterns: those that need backtracking have limits, all others are matched in linear time."""

from __future__ import annotations

import json

from tests.structured.hostile.case import (
    INVALID,
    JUDGED,
    NOT_AS_FORMAT,
    UNSAFE,
    Case,
    Schema,
    chain,
    draft,
    judged,
)

_DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
_EMAIL = (
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@"
    r"([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
)

# Look-around and back-references: a pattern, a text, and the right verdict.
_BACKTRACKING = {
    "looks ahead": ("a(?=b)", "ab", "valid"),
    "looks ahead in vain": ("^(?!admin).*$", "administrator", "schema_violation"),
    "looks behind": ("(?<=a)b", "bb", "schema_violation"),
    "looks behind in vain": ("(?<!a)b", "bb", "valid"),
    "repeats its group": (r"(a+)\1", "aa", "valid"),
    "repeats its group too often": (r"(a+)\1b", "a" * 1_000, "undecided"),
    "repeats its group in a long text": (r"(a+)\1b", "a" * 500_000, "undecided"),
    "looks ahead in a group in a group": ("^(a|(b|(?=c)))$", "b", "valid"),
    "looks ahead and explodes": ("^(?=(a+)+$)a", "a" * 5_000 + "!", "schema_violation"),
    "explodes and looks ahead": ("^(?:(?=a)a|(?=a)aa)*$", "a" * 60 + "!", "undecided"),
    "reads to the end at each character": ("^(?:(?=[^c]*c)a|b|a)*$", "ab" * 200_000, "undecided"),
    "has many states": ("^(?:(?!(?:a|b)*a(?:a|b){300}c)(?:a|b))*$", "abba" * 5, "valid"),
    "has many states and a long text": (
        r"^(?:(?!(?:[ab]|\w)*a\w{30}c)(?:a|b))*$",
        "abbaabab" * 500,
        "undecided",
    ),
    "is a decimal number of pydantic": (_DECIMAL, "-12.50", "valid"),
    "is no decimal number of pydantic": (_DECIMAL, "-.", "schema_violation"),
    "is a long decimal number": (_DECIMAL, "1" * 1_500, "valid"),
    "is an address of zod": (_EMAIL, "a.b+c@example.com", "valid"),
    "is no address of zod": (_EMAIL, "a..b@example.com", "schema_violation"),
}

_LOOK_AHEAD = "^(?!admin)"

_LOOKS_AHEAD_IN: dict[str, tuple[Schema, object, str]] = {
    "patternProperties": (
        {"patternProperties": {_LOOK_AHEAD: {"type": "null"}}},
        {"a": 1},
        "schema_violation",
    ),
    "propertyNames": (
        {"propertyNames": {"pattern": _LOOK_AHEAD}},
        {"admin": 1},
        "schema_violation",
    ),
    "items": ({"items": {"pattern": _LOOK_AHEAD}}, ["admin"], "schema_violation"),
    "not": ({"not": {"pattern": _LOOK_AHEAD}}, "admin", "valid"),
    "not, too often": ({"not": {"pattern": r"(a+)\1b"}}, "a" * 1_000, "undecided"),
    "items, each at its limit": (
        {"items": {"pattern": "^(?:(?=.)[ab0-9]|(?=.)[ab0-9]{2})*$"}},
        ["ab" * 6 + str(n) for n in range(10_000)],
        "undecided",
    ),
    "patternProperties, too often": (
        {"patternProperties": {r"(a+)\1b": {}}, "additionalProperties": False},
        {"a" * 1_000: 1},
        "undecided",
    ),
    "ten thousand references": (
        chain(4, lambda x: {"allOf": [x] * 8}, {"pattern": "^(?:(?=a)a|(?=a)aa)*$"}),
        "a" * 11 + "!",
        "undecided",
    ),
    "dependentSchemas": (
        {"dependentSchemas": {"a": {"pattern": _LOOK_AHEAD}}},
        {"a": 1},
        "valid",
    ),
    "a place that only a reference reaches": (
        {"foo": {"pattern": _LOOK_AHEAD}, "$ref": "#/foo"},
        "admin",
        "schema_violation",
    ),
    "draft 4": (
        draft("draft-04", items={"patternProperties": {_LOOK_AHEAD: {"type": "null"}}}),
        [{"a": 1}],
        "schema_violation",
    ),
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
    **{
        name: judged({"pattern": pattern}, json.dumps(text), verdict)
        for name, (pattern, text, verdict) in _BACKTRACKING.items()
    },
    **{
        f"looks ahead in {place}": judged(schema, json.dumps(answer), verdict)
        for place, (schema, answer, verdict) in _LOOKS_AHEAD_IN.items()
    },
    **{
        f"explodes beside look-around: {name}": judged(
            {"allOf": [{"pattern": "^(?!b)"}, {"pattern": text}]},
            f'"{"a" * 3_000}!"',
            "schema_violation",
        )
        for name, text in _EXPLODING.items()
    },
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
    "repeats its group by name": Case({"pattern": r"(?<x>a+)\k<x>"}, (INVALID, JUDGED)),
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
