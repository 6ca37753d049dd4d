"""Schemas with references to other documents, with endless recursion, or over a limit."""

from __future__ import annotations

from tests.structured.hostile.case import NODE, UNSAFE, Schema, draft, nested, recursive, refused

_ADDRESSES = {
    "http": "http://example.com/a.json",
    "https": "https://example.com/a.json#/definitions/b",
    "ftp": "ftp://example.com/a.json",
    "a file": "file:///etc/passwd",
    "a file by its bare path": "/etc/passwd",
    "a neighbouring file": "other.json",
    "a file further up": "../../../../etc/passwd#/a",
    "a host without a scheme": "//example.com/a.json",
    "the machine itself": "http://127.0.0.1:8001/health",
    "the cloud's metadata": "http://169.254.169.254/latest/meta-data/",
    "a data URL": "data:application/json,{}",
    "a URN": "urn:example:a",
    "a scheme in capitals": "HTTP://EXAMPLE.COM/a.json",
    "a query": "?a=b",
}

_REMOTE: Schema = {"$ref": "http://example.com/a.json"}

_PLACES: dict[str, Schema] = {
    "a property": {"properties": {"a": _REMOTE}},
    "an unused definition": {"$defs": {"unused": _REMOTE}},
    "a definition of the old name": {"definitions": {"unused": _REMOTE}},
    "a property called $ref": {"properties": {"$ref": _REMOTE}},
    "items": {"items": {"items": _REMOTE}},
    "prefixItems": {"prefixItems": [{}, _REMOTE]},
    "additionalProperties": {"additionalProperties": _REMOTE},
    "patternProperties": {"patternProperties": {"^a": _REMOTE}},
    "propertyNames": {"propertyNames": _REMOTE},
    "unevaluatedItems": {"unevaluatedItems": _REMOTE},
    "contains": {"contains": _REMOTE},
    "not": {"not": _REMOTE},
    "then": {"if": False, "then": _REMOTE},
    "dependentSchemas": {"dependentSchemas": {"a": _REMOTE}},
    "dependencies of draft 7": draft("draft-07", dependencies={"a": _REMOTE}),
    "items of draft 4": draft("draft-04", items=[{}, _REMOTE]),
    "a place that only a reference reaches": {"foo": {"bar": _REMOTE}, "$ref": "#/foo/bar"},
    "an example that a reference reaches": {"examples": [_REMOTE], "$ref": "#/examples/0"},
    "a base of its own": {"$id": "http://example.com/base/", "$ref": "a.json"},
    "a base further in": {"properties": {"a": {"$id": "http://example.com/", "$ref": "b"}}},
    "a base of draft 4": draft("draft-04", id="http://example.com/", items={"$ref": "a.json"}),
    "a dynamic reference": {"$dynamicRef": "http://example.com/a.json#b"},
    "a reference whose siblings do not count": draft("draft-07", **_REMOTE, type="object"),
}

_LOOPS: dict[str, Schema] = {
    "to the root": {"$ref": "#"},
    "to the root by an empty reference": {"$ref": ""},
    "to itself": recursive(NODE),
    "to itself, in an unused definition": {"$defs": {"node": NODE}},
    "of two": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "properties": {"x": {"$ref": "#/$defs/a"}},
    },
    "of forty": {
        "$defs": {f"d{n}": {"$ref": f"#/$defs/d{(n + 1) % 40}"} for n in range(40)},
        "$ref": "#/$defs/d0",
    },
    "through allOf": recursive({"allOf": [{"type": "object"}, NODE]}),
    "through anyOf": recursive({"anyOf": [NODE, {"type": "null"}]}),
    "through oneOf": recursive({"oneOf": [{"type": "null"}, NODE]}),
    "through not": recursive({"not": NODE}),
    "through if": recursive({"if": NODE}),
    "through then": recursive({"if": {"type": "object"}, "then": NODE}),
    "through else": recursive({"if": {"type": "null"}, "else": NODE}),
    "through dependentSchemas": recursive({"dependentSchemas": {"a": NODE}}),
    "through dependencies of draft 7": draft("draft-07", dependencies={"a": {"$ref": "#"}}),
    "through a sibling of the reference": recursive({"$ref": "#/$defs/node", "type": "object"}),
    "through two combinations": recursive({"allOf": [{"anyOf": [{"not": NODE}]}]}),
    "through an anchor": {"$defs": {"a": {"$anchor": "here", "anyOf": [{"$ref": "#here"}]}}},
    "through another spelling": {"allOf": [{"$ref": "#/%61llOf/0"}]},
    "through an escaped name": {"$defs": {"a/b": {"$ref": "#/$defs/a~1b"}}},
    "through its own address": {"$id": "urn:mes:loop", "$ref": "urn:mes:loop"},
    "through a dynamic reference": {"$dynamicAnchor": "node", "allOf": [{"$dynamicRef": "#node"}]},
    "through a recursive reference": draft(
        "2019-09", **{"$recursiveAnchor": True, "anyOf": [{"$recursiveRef": "#"}]}
    ),
    "in a place that only a reference reaches": {
        "foo": {"$ref": "#/foo"},
        "not": {"$ref": "#/foo"},
    },
}

_WORDS = [f"word {n}" for n in range(20_000)]

_TOO_LARGE: dict[str, Schema] = {
    "80 properties deep": nested({}, 80, lambda inner: {"properties": {"a": inner}}),
    "400 lists deep": nested({}, 400, lambda inner: {"items": inner}),
    "100 combinations deep": nested({}, 100, lambda inner: {"allOf": [inner]}),
    "100 negations deep": nested({}, 100, lambda inner: {"not": inner}),
    "80 definitions deep": nested({}, 80, lambda inner: {"$defs": {"a": inner}}),
    "every second level a condition": nested({}, 50, lambda x: {"if": {"items": x}}),
    "12,000 sub-schemas": {"anyOf": [{"items": {}} for _ in range(6_000)]},
    "12,000 sub-schemas over many objects": {
        "anyOf": [{"properties": {f"a{n}": {} for n in range(200)}} for _ in range(60)]
    },
    "1,100 properties": {"properties": {f"a{n}": {} for n in range(1_100)}},
    "1,100 properties deep down": {"items": {"properties": {f"a{n}": {} for n in range(1_100)}}},
    "5,000 numbers to choose from": {"enum": list(range(5_000))},
    "20,000 words to choose from": {"properties": {"a": {"enum": _WORDS}}},
    "600 patterns": {"allOf": [{"pattern": f"^a{n}$"} for n in range(600)]},
    "600 patterns for names": {"patternProperties": {f"^a{n}$": {} for n in range(600)}},
    "a pattern of 6,000 characters": {"pattern": "^" + "ab" * 3_000 + "$"},
    "a pattern of 20,000 alternatives": {"pattern": "|".join(map(str, range(20_000)))},
    "a name pattern of 6,000 characters": {"patternProperties": {"a" * 6_000: {}}},
    "a description of 400 kB": {"description": "a" * 400_000},
    "400 kB under an unknown keyword": {"x-data": ["abcdefgh"] * 40_000},
    "a constant of 400 kB": {"const": {f"a{n}": "abcdefgh" for n in range(25_000)}},
}

CASES = {
    **refused(
        UNSAFE, {f"reference to {x}": {"$ref": address} for x, address in _ADDRESSES.items()}
    ),
    **refused(UNSAFE, {f"remote reference in {x}": schema for x, schema in _PLACES.items()}),
    **refused(UNSAFE, {f"loop {x}": schema for x, schema in _LOOPS.items()}),
    **refused(UNSAFE, _TOO_LARGE),
}
