"""Schemas that look wrong and are right, or that correct services may accept or reject."""

from __future__ import annotations

import json
from typing import Any

from tests.structured.hostile.case import (
    INVALID,
    JUDGED,
    UNSAFE,
    Case,
    Schema,
    draft,
    judged,
    nested,
)

_REMOTE: Schema = {"$ref": "http://example.com/a.json"}
_ONE: Schema = {"type": "integer"}

_RIGHT: dict[str, tuple[Schema, Any]] = {
    "a property called $ref": ({"properties": {"$ref": {"type": "string"}}}, {"$ref": "#"}),
    "a property called $id": ({"properties": {"$id": {"type": "string"}}}, {"$id": "x"}),
    "a property called id in draft 4": (draft("draft-04", properties={"id": _ONE}), {"id": 1}),
    "properties called like keywords": (
        {"properties": {"type": {}, "enum": {}, "pattern": {}, "$schema": {}, "allOf": {}}},
        {"type": 1},
    ),
    "a constant that looks like a reference": ({"const": _REMOTE}, _REMOTE),
    "a choice that looks like a reference": ({"enum": [_REMOTE, {"$id": "#"}]}, _REMOTE),
    "a default that looks like a reference": ({"default": _REMOTE, "examples": [_REMOTE]}, {}),
    "a default that looks like a pattern": ({"default": {"pattern": "(?=a)"}}, {}),
    "an unknown keyword that looks like a reference": ({"x-note": _REMOTE}, {}),
    "properties called __proto__": ({"properties": {"__proto__": _ONE}}, {"__proto__": 1}),
    "properties called __class__": ({"properties": {"__class__": _ONE}}, {"__class__": 1}),
    "a property without a name": ({"properties": {"": _ONE}, "required": [""]}, {"": 1}),
    "a property called null byte": ({"properties": {"\0": _ONE}}, {"\0": 1}),
    "a property of 300 characters": ({"properties": {"a" * 300: _ONE}}, {"a" * 300: 1}),
    "a property of 300 faces": ({"properties": {"😀" * 300: _ONE}}, {"😀" * 300: 1}),
    "$defs beside definitions": (
        {
            "$defs": {"a": _ONE},
            "definitions": {"b": _ONE},
            "prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/definitions/b"}],
        },
        [1, 2],
    ),
    "a reference to an unknown keyword": ({"foo": {"bar": _ONE}, "$ref": "#/foo/bar"}, 1),
    "a reference to a branch": ({"anyOf": [_ONE], "items": {"$ref": "#/anyOf/0"}}, 1),
    "a reference to a boolean": ({"$defs": {"a": True}, "$ref": "#/$defs/a"}, 1),
    "a name that is escaped": ({"$defs": {"a/b~c": _ONE}, "$ref": "#/$defs/a~1b~0c"}, 1),
    "a name that is percent-encoded": ({"$defs": {"a b%": _ONE}, "$ref": "#/$defs/a%20b%25"}, 1),
    "a name that is empty": ({"$defs": {"": _ONE}, "$ref": "#/$defs/"}, 1),
    "a keyword that is percent-encoded": ({"$defs": {"a": _ONE}, "$ref": "#/%24defs/a"}, 1),
    "an anchor": ({"$defs": {"a": {"$anchor": "one", **_ONE}}, "$ref": "#one"}, 1),
    "a document with an address": ({"$id": "https://example.com/a", "type": "integer"}, 1),
    "a document with an address in draft 4": (
        draft("draft-04", id="http://x/y", type="integer"),
        1,
    ),
    "$id in draft 4": (draft("draft-04", **{"$id": "http://x/y", "type": "integer"}), 1),
    "id in 2020-12": ({"id": 5, "type": "integer"}, 1),
    "draft 4 without its #": (
        {"$schema": "http://json-schema.org/draft-04/schema", "type": "integer"},
        1,
    ),
    "exclusiveMinimum of draft 4": (draft("draft-04", minimum=0, exclusiveMinimum=True), 1),
    "references whose siblings do not count": (
        draft("draft-07", definitions={"a": _ONE}, **{"$ref": "#/definitions/a", "type": "null"}),
        1,
    ),
    "recursion through the names of properties": ({"propertyNames": {"$ref": "#"}}, {"a": 1}),
    "recursion through items": ({"items": {"$ref": "#"}}, [[[]]]),
    "a tree by dynamic references": (
        {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}},
        [[[]]],
    ),
    "a huge bound": ({"type": "integer", "maximum": 10**400}, 1),
    "a tiny step": ({"multipleOf": 1e-300}, 1),
    "an unknown format": ({"format": "colour"}, "red"),
    "booleans all over": ({"properties": {"a": True}, "additionalProperties": True}, {"a": 1}),
    "no rule at all": ({}, None),
    "the deepest that is allowed": (nested(_ONE, 30, lambda x: {"items": x}), []),
    "64 patterns": ({"allOf": [{"pattern": f"^a?{n}"} for n in range(64)]}, {}),
    "250 properties": ({"properties": {f"a{n}": _ONE for n in range(250)}}, {"a1": 1}),
    "1,000 words to choose from": ({"enum": [f"word {n}" for n in range(1_000)]}, "word 999"),
}

_IMPOSSIBLE: dict[str, Schema] = {
    "more properties than allowed": {"minProperties": 5, "maxProperties": 2},
    "more matches than allowed": {"contains": {}, "minContains": 5, "maxContains": 2},
    "nothing but false": {"not": {}},
    "two constants": {"allOf": [{"const": 1}, {"const": 2}]},
}

_INNER = {"$id": "http://example.com/inner", "$schema": "http://json-schema.org/draft-07/schema#"}

# Both a rejection and a verdict are right; nothing may be fetched and nothing may crash.
_EITHER: dict[str, Schema] = {
    "$id twice": {"$defs": {"a": {"$id": "urn:mes:a"}, "b": {"$id": "urn:mes:a", "type": "null"}}},
    "an anchor twice": {"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}, "$ref": "#x"},
    "a dialect within": {"properties": {"a": {**_INNER, "items": [{}]}}},
    "a dialect within that is unknown": {"items": {"$schema": "http://example.com/dialect"}},
    "a dialect within that is a number": {"items": {"$schema": 5}},
    "a document within, by its address": {"$defs": {"a": _INNER}, "$ref": _INNER["$id"]},
    "a definition of another resource": {
        "$defs": {"a": {"$id": "urn:mes:inner", "$ref": "#/$defs/b"}, "b": {}},
        "$ref": "#/$defs/a",
    },
    "its own address": {"$id": "http://x/y", "$defs": {"a": {}}, "$ref": "http://x/y#/$defs/a"},
    "an address with blanks": {"$id": "not an address at all \\ %zz"},
    "an address that never ends": {"$id": "http://example.com/" + "a/" * 20_000},
    "an address without a host": {"$id": "http://"},
    "an address of a port that is none": {"$id": "http://example.com:99999999/"},
    "a reference with a broken escape": {"$ref": "#/%zz"},
    "a reference with bytes that are not UTF-8": {"$ref": "#/%ff%fe"},
    "an index with a leading zero": {"anyOf": [_ONE], "items": {"$ref": "#/anyOf/00"}},
    "an index that is negative": {"anyOf": [_ONE], "items": {"$ref": "#/anyOf/-1"}},
    "an index of 5,000 digits": {"anyOf": [_ONE], "items": {"$ref": "#/anyOf/" + "1" * 5_000}},
    "a custom vocabulary": {"$vocabulary": {"http://example.com/v": True}},
    "a meta-schema of its own": {"$id": "urn:mes:m", "items": {"$schema": "urn:mes:m"}},
    "another dialect's reference": {"$recursiveRef": "#", "$dynamicRef": "#"},
    "the meta-schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    "a constant 300 deep": {"const": nested(1, 300, lambda x: [x])},
    "a constant 5,000 deep": {"const": nested(1, 5_000, lambda x: [x])},
    "a default 5,000 deep": {"default": nested(1, 5_000, lambda x: {"a": x})},
    "5,000 properties deep": nested({}, 5_000, lambda x: {"properties": {"a": x}}),
    "5,000 unknown keywords deep": nested({}, 5_000, lambda x: {"x": x}),
}

CASES = {
    **{
        f"right: {name}": judged(schema, json.dumps(answer), "valid")
        for name, (schema, answer) in _RIGHT.items()
    },
    **{f"impossible: {name}": judged(schema, [1, 2], None) for name, schema in _IMPOSSIBLE.items()},
    **{f"either: {x}": Case(schema, (INVALID, UNSAFE, JUDGED)) for x, schema in _EITHER.items()},
}
