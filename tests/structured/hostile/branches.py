"""Small schemas whose validation would take exponential time."""

from __future__ import annotations

from tests.structured.hostile.case import (
    JUDGED,
    NODE,
    UNSAFE,
    Case,
    Schema,
    chain,
    draft,
    judged,
    nested,
    recursive,
    refused,
)

_DOUBLED_IN_PLACE: dict[str, Schema] = {
    "allOf": chain(20, lambda x: {"allOf": [x, x]}),
    "anyOf": chain(20, lambda x: {"anyOf": [x, x]}),
    "oneOf": chain(20, lambda x: {"oneOf": [x, x]}),
    "thrice": chain(13, lambda x: {"anyOf": [x, x, x]}),
    "sixteen times": chain(6, lambda x: {"anyOf": [x] * 16}),
    "if and then": chain(20, lambda x: {"if": x, "then": x, "else": x}),
    "dependentSchemas": chain(20, lambda x: {"dependentSchemas": {"a": x, "b": x}}),
    "allOf and anyOf in turn": chain(20, lambda x: {"allOf": [{"anyOf": [x]}, {"not": x}]}),
    "a reference and its sibling": chain(20, lambda x: {**x, "allOf": [x]}),
    "an unused definition": {"$defs": chain(20, lambda x: {"anyOf": [x, x]})["$defs"]},
    "draft 4": draft(
        "draft-04",
        definitions={
            **{f"d{n}": {"anyOf": [{"$ref": f"#/definitions/d{n + 1}"}] * 2} for n in range(20)},
            "d20": {},
        },
        items={"$ref": "#/definitions/d0"},
    ),
}

# Each level of the answer doubles the work: there are 2^30 paths, though none in place.
_DOUBLED_ON_THE_WAY_DOWN: dict[str, Schema] = {
    "items of anyOf": chain(30, lambda x: {"items": {"anyOf": [x, x]}}),
    "items of oneOf": chain(30, lambda x: {"items": {"oneOf": [x, x]}}),
    "items of allOf": chain(30, lambda x: {"items": {"allOf": [x, x]}}),
    "items of if": chain(30, lambda x: {"items": {"if": x, "then": x, "else": x}}),
    "items and contains": chain(30, lambda x: {"items": x, "contains": x}),
}


def _list(leaf: object, depth: int) -> object:
    return nested(leaf, depth, lambda inner: [inner])


def _object(leaf: object, depth: int) -> object:
    return nested(leaf, depth, lambda inner: {"a": inner})


def _tree(keyword: str) -> Schema:
    branch = {"properties": {"a": NODE}}
    return recursive({"type": ["object", "integer"], keyword: [branch, {**branch, "title": "b"}]})


_RECURSIVE: dict[str, tuple[Schema, object]] = {
    "if": (
        recursive(
            {
                "if": {"items": NODE},
                "then": {"items": NODE},
                "else": {"items": NODE},
                "type": ["array", "integer"],
            }
        ),
        _list("x", 40),
    ),
    "contains": (
        recursive({"type": ["array", "integer"], "items": NODE, "contains": NODE}),
        _list("x", 40),
    ),
    "properties and patternProperties": (
        recursive(
            {
                "type": ["object", "integer"],
                "properties": {"a": NODE},
                "patternProperties": {"a": NODE, "^a": NODE},
            }
        ),
        _object("x", 40),
    ),
    "unevaluatedProperties": (
        recursive(
            {
                "type": ["object", "integer"],
                "unevaluatedProperties": NODE,
                "anyOf": [{"properties": {"a": NODE}}, {"properties": {"a": NODE}}],
            }
        ),
        _object("x", 40),
    ),
    "dynamic references": (
        {
            "$dynamicAnchor": "node",
            "type": ["array", "integer"],
            "anyOf": [{"items": {"$dynamicRef": "#node"}}, {"items": {"$dynamicRef": "#node"}}],
        },
        _list("x", 40),
    ),
    "recursive references": (
        draft(
            "2019-09",
            **{
                "$recursiveAnchor": True,
                "type": ["array", "integer"],
                "anyOf": [{"items": {"$recursiveRef": "#"}}, {"items": {"$recursiveRef": "#"}}],
            },
        ),
        _list("x", 40),
    ),
    "references to the root": (
        {
            "type": ["array", "integer"],
            "anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}],
        },
        _list("x", 40),
    ),
    "negations": (
        recursive(
            {
                "type": ["array", "integer"],
                "allOf": [{"not": {"not": {"items": NODE}}}, {"items": NODE}],
            }
        ),
        _list("x", 40),
    ),
}


def _unevaluated_in_branches() -> Case:
    def wrap(inner: Schema) -> Schema:
        return {"anyOf": [inner, inner], "unevaluatedProperties": {"type": "integer"}}

    schema = nested({"properties": {"a": True}}, 8, wrap)
    answer = judged(schema, {f"a{n}": n for n in range(2_000)}).answer
    return Case(schema, (UNSAFE, JUDGED), answer)


CASES = {
    **refused(UNSAFE, {f"doubled by {name}": x for name, x in _DOUBLED_IN_PLACE.items()}),
    **{
        f"doubled on the way down by {name}, leaf {leaf!r}": Case(
            schema, (UNSAFE, JUDGED), judged({}, _list(leaf, 30)).answer
        )
        for name, schema in _DOUBLED_ON_THE_WAY_DOWN.items()
        for leaf in (1, "x")
    },
    **{
        f"{keyword} in {keyword}, answer {depth} deep": judged(
            _tree(keyword), _object({"a": "x"}, depth), "schema_violation"
        )
        for keyword in ("anyOf", "oneOf", "allOf")
        for depth in (12, 16, 22, 40)
    },
    **{
        f"recursion by {name}": judged(schema, answer, "schema_violation")
        for name, (schema, answer) in _RECURSIVE.items()
    },
    "unevaluatedProperties in branches in branches": _unevaluated_in_branches(),
}
