"""Valid schemas that the runtime must not get as a grammar: it would crash, hang or stall."""

from __future__ import annotations

from tests.structured.hostile.case import NODE, NOT_AS_FORMAT, Case, Schema, draft, recursive

_VIA_ALL_OF: Schema = {"allOf": [NODE]}
_OR_NULL: Schema = {"anyOf": [NODE, {"type": "null"}]}

_CRASHING: dict[str, Schema] = {
    "items": recursive({"properties": {"a": {"type": "array", "items": _VIA_ALL_OF}}}),
    "properties": recursive({"type": "object", "properties": {"a": _VIA_ALL_OF}}),
    "anyOf around it": recursive({"properties": {"a": {"anyOf": [_VIA_ALL_OF, {"type": "null"}]}}}),
    "anyOf within it": recursive({"properties": {"a": {"allOf": [_OR_NULL]}}}),
    "a description beside it": recursive({"properties": {"a": {**_VIA_ALL_OF, "title": "a"}}}),
    "two definitions": {
        "$defs": {
            "a": {"properties": {"b": {"allOf": [{"$ref": "#/$defs/b"}]}}},
            "b": {"properties": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}},
        },
        "$ref": "#/$defs/a",
    },
    "draft 4": draft(
        "draft-04",
        definitions={"n": {"properties": {"a": {"allOf": [{"$ref": "#/definitions/n"}]}}}},
        properties={"root": {"$ref": "#/definitions/n"}},
    ),
}

_ITEMS: Schema = {"type": "array", "items": {"type": "null"}, "minItems": 5, "maxItems": 2}
_LENGTH: Schema = {"type": "string", "minLength": 5, "maxLength": 2}
_OPTIONAL: Schema = {"type": "object", "properties": {f"a{n}": {} for n in range(500)}}

_HANGING: dict[str, Schema] = {
    "more items than allowed": _ITEMS,
    "more items, without type": {"items": {"type": "null"}, "minItems": 5, "maxItems": 2},
    "more items in draft 4": draft("draft-04", **_ITEMS),
    "more characters than allowed": _LENGTH,
    "more characters, without type": {"minLength": 5, "maxLength": 2},
    "more characters in one of two types": {**_LENGTH, "type": ["string", "null"]},
    "more characters in a property": {"properties": {"a": {"items": _LENGTH}}},
    "more characters behind a reference": {"$defs": {"a": _LENGTH}, "items": {"$ref": "#/$defs/a"}},
    "more characters in a choice": {"anyOf": [{"type": "null"}, _LENGTH]},
    "more characters in all": {"allOf": [{"properties": {"a": _LENGTH}}]},
    "more characters in others": {"type": "object", "additionalProperties": _LENGTH},
    # The time goes with the square of the optional properties of an object.
    "eight times 500 optional properties": {"properties": {f"b{n}": _OPTIONAL for n in range(8)}},
    # To exclude these names from the others takes a rule for each of their characters.
    "others beside 400 long names": {
        "type": "object",
        "properties": {chr(97 + n % 26) * 250 + str(n): {} for n in range(400)},
        "additionalProperties": {"type": "string"},
    },
}


def _whole(**bounds: float) -> Schema:
    return {"type": "integer", **bounds}


_STALLING: dict[str, Schema] = {
    "no number between": _whole(minimum=5, maximum=2),
    "no number between the negative": _whole(minimum=-2, maximum=-5),
    "no number between, in a property": {"properties": {"a": _whole(minimum=5, maximum=2)}},
    "no number between the exclusive": _whole(exclusiveMinimum=5, exclusiveMaximum=5),
    "no number between neighbours": _whole(exclusiveMinimum=1, exclusiveMaximum=2),
    "no number between fractions": _whole(minimum=0.5, maximum=0.6),
    "no number from here to here": _whole(minimum=5, exclusiveMaximum=5),
    "nothing to choose from": {"enum": []},
    "nothing to choose from in draft 4": draft("draft-04", enum=[]),
    "nothing to choose from in a property": {"properties": {"a": {"enum": []}}},
    "nothing to choose from in a list": {"type": "array", "items": {"enum": []}},
}

CASES = {
    **{
        f"crash: recursion through allOf, {name}": Case(schema, (NOT_AS_FORMAT,))
        for name, schema in _CRASHING.items()
    },
    **{f"hang: {name}": Case(schema, (NOT_AS_FORMAT,)) for name, schema in _HANGING.items()},
    **{f"stall: {name}": Case(schema, (NOT_AS_FORMAT,)) for name, schema in _STALLING.items()},
}
