"""Documents that are not valid schemas: by their meta-schema, or with dangling references."""

from __future__ import annotations

from tests.structured.hostile.case import INVALID, draft, nested, refused

_DANGLING = {
    "a definition that is missing": {"$ref": "#/$defs/nowhere"},
    "an anchor that is missing": {"$ref": "#nowhere"},
    "a dynamic anchor that is missing": {"$dynamicRef": "#nowhere"},
    "a definition of the old name": {"$defs": {"a": {}}, "$ref": "#/definitions/a"},
    "the seventh of one": {"properties": {"a": {"$ref": "#/anyOf/7"}}, "anyOf": [{}]},
    "an index that is a word": {"properties": {"a": {"$ref": "#/anyOf/first"}}, "anyOf": [{}]},
    "a keyword that is unknown and absent": {"$ref": "#/foo/bar"},
    "a number": {"foo": {"bar": 5}, "$ref": "#/foo/bar"},
    "a list": {"anyOf": [{}], "properties": {"a": {"$ref": "#/anyOf"}}},
    "a string in default": {"default": {"a": "text"}, "$ref": "#/default/a"},
    "a name escaped wrongly": {"$defs": {"a/b": {}}, "$ref": "#/$defs/a/b"},
    "a name escaped twice": {"$defs": {"a/b": {}}, "$ref": "#/$defs/a~01b"},
    "a name decoded twice": {"$defs": {"a b": {}}, "$ref": "#/$defs/a%2520b"},
    "an unused definition": {"$defs": {"unused": {"$ref": "#/$defs/nowhere"}}},
    "a place deep in not": {"not": {"items": {"not": {"$ref": "#/$defs/nowhere"}}}},
    "a name of 3,000 characters": {"$ref": "#/$defs/" + "a" * 3_000},
}

_HIDDEN_BEHIND_REFERENCES = {
    "an unknown type": {"foo": {"bar": {"type": "strin"}}, "$ref": "#/foo/bar"},
    "a type that is a number": {"default": {"type": 5}, "$ref": "#/default"},
    "a broken pattern": {"examples": [{"pattern": "("}], "$ref": "#/examples/0"},
    "a dangling reference": {"const": {"$ref": "#/nowhere"}, "not": {"$ref": "#/const"}},
}

_TYPES = {
    "$ref is a number": {"$ref": 5},
    "$ref is a number in draft 4": draft("draft-04", **{"$ref": 5}),
    "$ref is a list in draft 7": draft("draft-07", **{"$ref": ["#"]}),
    "$id is a number": {"$id": 5},
    "$id is a fragment": {"$id": "#here"},
    "$anchor has a blank": {"$anchor": "9 lives"},
    "$defs is a list": {"$defs": []},
    "a definition is a number": {"$defs": {"a": 5}},
    "title is a list": {"title": []},
    "type is unknown": {"type": "strin"},
    "type is a number": {"type": 5},
    "type is an empty list": {"type": []},
    "type has a duplicate": {"type": ["null", "null"]},
    "type is unknown in a list": {"type": ["string", "strin"]},
    "properties is a list": {"properties": []},
    "a property is a number": {"properties": {"a": 5}},
    "a property is null, deep down": nested(None, 12, lambda x: {"properties": {"a": x}}),
    "required is a string": {"required": "name"},
    "required is a boolean": {"properties": {"a": {"required": True}}},
    "required contains a number": {"required": [1]},
    "required contains a name twice": {"required": ["a", "a"]},
    "items is a number": {"items": 5},
    "additionalProperties is a string": {"additionalProperties": "no"},
    "allOf is empty": {"allOf": []},
    "anyOf is an object": {"anyOf": {}},
    "not is a number": {"not": 5},
    "if is a string": {"if": "a"},
    "enum is an object": {"enum": {}},
    "pattern is a number": {"pattern": 5},
    "format is a number": {"format": 5},
    "minItems is negative": {"minItems": -1},
    "minLength is a fraction": {"minLength": 1.5},
    "maxLength is a string": {"maxLength": "10"},
    "minimum is a string": {"minimum": "0"},
    "multipleOf is zero": {"multipleOf": 0},
    "multipleOf is negative": {"multipleOf": -0.5},
    "uniqueItems is a string": {"uniqueItems": "yes"},
    "dependentRequired is a string": {"dependentRequired": {"a": "b"}},
    "dependentSchemas is a list": {"dependentSchemas": [{}]},
}

_DIALECTS = {
    "a number": {"$schema": 5},
    "a list": {"$schema": ["https://json-schema.org/draft/2020-12/schema"]},
    "draft 3": draft("draft-03", type="object"),
    "a draft to come": draft("2031-01", type="object"),
    "almost 2020-12": {"$schema": "https://json-schema.org/draft/2020-12/schema/core"},
    "a custom one": {"$schema": "http://example.com/my-dialect", "type": "object"},
    "a file": {"$schema": "file:///etc/passwd"},
    "this very document": {"$schema": "#"},
    "100,000 characters": {"$schema": "x" * 100_000},
}

_BROKEN = {
    "a group that is not closed": "(",
    "a group that is not opened": "a)",
    "a class that is not closed": "[a-",
    "a class that runs backwards": "[z-a]",
    "a quantifier of nothing": "*a",
    "a count that runs backwards": "^a{3,1}$",
    "a backslash at the end": "a\\",
    "300 groups that are not closed": "(" * 300,
}

CASES = refused(
    INVALID,
    {
        **{f"reference to {name}": schema for name, schema in _DANGLING.items()},
        **{f"referred to: {name}": schema for name, schema in _HIDDEN_BEHIND_REFERENCES.items()},
        **_TYPES,
        **{f"dialect is {name}": schema for name, schema in _DIALECTS.items()},
        **{f"pattern with {name}": {"pattern": text} for name, text in _BROKEN.items()},
        "a broken pattern for names": {"patternProperties": {"(": {}}},
    },
)
