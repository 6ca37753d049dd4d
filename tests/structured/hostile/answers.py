"""Answers that would crash or stall a careless validator, with plain schemas."""

from __future__ import annotations

import json
from typing import Any

from tests.structured.hostile.case import Case, Schema, judged

_MEGABYTE = 1_000_000
_ANY: Schema = {"type": ["array", "object", "string", "number"]}

_NOT_JSON = {
    "brackets": "[" * _MEGABYTE,
    "braces": "{" * _MEGABYTE,
    "keys": '{"a":' * (_MEGABYTE // 5),
    "brackets and braces": '[{"a":' * (_MEGABYTE // 6),
    "closing brackets": "]" * _MEGABYTE,
    "backticks": "`" * _MEGABYTE,
    "quotes": '"' * _MEGABYTE,
    "backslashes": '"' + "\\" * _MEGABYTE,
    "null bytes": "\0" * _MEGABYTE,
    "byte order marks": "\ufeff" * _MEGABYTE,
    "minus signs": "-" * _MEGABYTE,
    "commas": "[" + "," * _MEGABYTE,
    "fences that open": "```json\n" * (_MEGABYTE // 8),
    "a fence and spaces": "```json\n" + " " * (3 * _MEGABYTE),
    "a fence and line ends": "```json\n" + "\n" * (3 * _MEGABYTE),
    "a fence and lines of spaces": "```json\n" + ("\n" + " " * 20) * (_MEGABYTE // 20),
    "fences that open and spaces": ("```json" + " " * 1_000) * 1_000,
    "prose with brackets": "see [*] and {+} " * (_MEGABYTE // 16),
    "prose with beginnings of lists": "[1, " * (_MEGABYTE // 4),
    "beginnings before a long list": "[" * 40 + "1," * (_MEGABYTE // 2),
    "beginnings before a long string": '["' * 40 + "a" * _MEGABYTE,
    "beginnings before a long object": "{" * 40 + '"a": 1, ' * (_MEGABYTE // 8),
    "a list that never ends": "[" + "1," * (_MEGABYTE // 2),
    "a string that never ends": '"' + "a" * _MEGABYTE,
    "a number of a million digits": "1" * _MEGABYTE,
    "a negative number of 5,000 digits": "-" + "1" * 5_000,
    "an exponent of a million digits": "1e" + "9" * _MEGABYTE,
    "infinity": "1e400",
    "a list of infinities": "[" + "1e999," * 50_000 + "1]",
    "NaN": "NaN",
    "half a surrogate pair": '"\\ud800"',
    "half a surrogate pair as a name": '{"\\udc00": 1}',
    "a name twice": '{"a": 1, "a": 2}',
    "a name ten thousand times": "{" + '"a":1,' * 10_000 + '"a":1}',
}

_EMPTY = {
    "spaces": " " * (3 * _MEGABYTE),
    "line ends": "\n" * (3 * _MEGABYTE),
}

_DEEP = {
    "lists 100 deep": "[" * 100 + "]" * 100,
    "lists 900 deep": "[" * 900 + "]" * 900,
    "lists 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "objects 100,000 deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "lists 100,000 deep in a fence": "```json\n" + "[" * 100_000 + "]" * 100_000 + "\n```",
}

_LARGE = {f"a{n}": "abcdefgh" for n in range(4_000)}
_ROWS = [{"id": n, "name": "abcdefgh"} for n in range(5_000)]

_LONG: dict[str, tuple[Schema, Any, str]] = {
    "20,000 wrong items": ({"items": {"type": "integer"}}, ["x"] * 20_000, "schema_violation"),
    "5,000 objects that are unique": ({"uniqueItems": True}, _ROWS, "valid"),
    "5,000 objects and one twice": ({"uniqueItems": True}, [*_ROWS, _ROWS[0]], "schema_violation"),
    "5,000 names that are not allowed": (
        {"additionalProperties": False},
        {f"a{n}": 1 for n in range(5_000)},
        "schema_violation",
    ),
    "5,000 names that are wrong": (
        {"propertyNames": {"maxLength": 1}},
        {f"a{n}": 1 for n in range(5_000)},
        "schema_violation",
    ),
    "5,000 names that are not evaluated": (
        {
            "anyOf": [{"properties": {f"a{n}": {}}} for n in range(50)],
            "unevaluatedProperties": False,
        },
        {f"a{n}": 1 for n in range(5_000)},
        "schema_violation",
    ),
    "20,000 items that contain nothing": (
        {"contains": {"type": "string"}, "minContains": 2},
        list(range(20_000)),
        "schema_violation",
    ),
    "20,000 items that contain too much": (
        {"contains": {"type": "integer"}, "maxContains": 9},
        [1] * 20_000,
        "schema_violation",
    ),
    "a huge constant that is met": ({"const": _LARGE}, _LARGE, "valid"),
    "a huge constant that is missed": ({"const": _LARGE}, {**_LARGE, "a1": ""}, "schema_violation"),
    "huge choices that are missed": (
        {"enum": [[*range(1_000), n] for n in range(20)]},
        [*range(1_000), 20],
        "schema_violation",
    ),
    "200 branches that are all wrong": (
        {"anyOf": [{"required": [f"a{n}"]} for n in range(200)]},
        {},
        "schema_violation",
    ),
    "100 branches for 100 wrong items": (
        {"items": {"anyOf": [{"required": [f"a{n}"]} for n in range(100)]}},
        [{}] * 100,
        "schema_violation",
    ),
    "a string of a megabyte that is too long": (
        {"maxLength": 10},
        "x" * _MEGABYTE,
        "not_json",
    ),
    "a string of a megabyte that is the wrong type": (
        {"type": "integer"},
        "é" * _MEGABYTE,
        "not_json",
    ),
    "a name of a megabyte": (
        {"additionalProperties": False},
        {"x" * _MEGABYTE: 1},
        "not_json",
    ),
}

_NUMBERS: dict[str, tuple[Schema, str, str | None]] = {
    "half of 10^400": ({"multipleOf": 0.5}, "1" + "0" * 400, None),
    "a tenth of 10^4000": ({"multipleOf": 0.1}, "1" + "0" * 4_000, None),
    "10^4000 and a fraction": ({"minimum": 0.5}, "1" + "0" * 4_000, "valid"),
    "10^4000 and 10^4000": ({"const": 10**4_000}, "1" + "0" * 4_000, None),
    "1e308 in tiny steps": ({"multipleOf": 1e-308}, "1e308", None),
    "an integer of 4,000 digits": ({"type": "integer"}, "7" * 4_000, None),
    "zero with a sign": ({"const": 0}, "-0.0", None),
    "a fraction of 5,000 digits": ({"type": "number"}, "0." + "1" * 5_000, "valid"),
}

_FORMATS = (
    "date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname",
    "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uri-template", "uuid",
    "json-pointer", "relative-json-pointer", "regex",
)  # fmt: skip
_BITS = ("a", "1", "é.", "/a", "(a")


def _long_string(format_name: str, bit: str) -> Case:
    return judged({"format": format_name}, json.dumps(bit * (100_000 // len(bit))))


CASES = {
    **{f"1 MB of {name}": judged(_ANY, text, "not_json") for name, text in _NOT_JSON.items()},
    **{f"3 MB of {name}": judged(_ANY, text, "empty") for name, text in _EMPTY.items()},
    **{name: judged(_ANY, text) for name, text in _DEEP.items()},
    **{
        name: judged(schema, json.dumps(answer), verdict)
        for name, (schema, answer, verdict) in _LONG.items()
    },
    **{name: judged(*arguments) for name, arguments in _NUMBERS.items()},
    **{
        f"100 kB of {bit} as {format_name}": _long_string(format_name, bit)
        for format_name in _FORMATS
        for bit in _BITS
    },
}
