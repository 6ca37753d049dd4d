"""Decoding modes: the effect of keywords in llama.cpp's grammar, and the modes that suit."""

from __future__ import annotations

import pytest

from mes import structured
from mes.structured.decoding_modes import GrammarFinding

ALL = ("grammar", "json", "prompt")
WORD = {"type": "string"}
OPEN_OBJECT = {"properties": {}, "additionalProperties": True}
UNSATISFIABLE = {"properties": {}, "required": ["a"]}


def findings(schema):
    """Return all findings about the schema."""
    return set(structured.check_schema(schema).report.findings)


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword", "effect"),
    [
        ({"type": "object", "properties": {"a": WORD}}, "", "properties", "enforced"),
        ({"type": "integer", "minimum": 3}, "", "minimum", "enforced"),
        ({"type": "number", "minimum": 3}, "", "minimum", "ignored"),
        ({"type": "string", "maxLength": 5}, "", "maxLength", "enforced"),
        ({"type": "string", "maxLength": 5, "pattern": "^a$"}, "", "maxLength", "ignored"),
        ({"type": "string", "maxLength": 5000}, "", "maxLength", "ignored"),
        ({"type": "string", "minLength": 5000}, "", "minLength", "refused"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "", "pattern", "enforced"),
        ({"type": "string", "pattern": "[a-z]+"}, "", "pattern", "refused"),
        ({"type": "string", "pattern": r"^\d+$"}, "", "pattern", "refused"),
        ({"type": "string", "pattern": "^*a$"}, "", "pattern", "fatal"),
        ({"type": "string", "pattern": r"^(?:a|\(+)[*+?]$"}, "", "pattern", "enforced"),
        ({"type": "string", "format": "date"}, "", "format", "enforced"),
        ({"type": "string", "format": "email"}, "", "format", "ignored"),
        ({"enum": ["a"], "maxLength": 1}, "", "maxLength", "ignored"),
        ({"oneOf": [WORD]}, "", "oneOf", "ignored"),
        ({"anyOf": [WORD, {"multipleOf": 2}]}, "/anyOf/1", "multipleOf", "ignored"),
        ({"type": "array", "items": WORD, "minItems": 2}, "", "minItems", "enforced"),
        ({"type": "array", "minItems": 2}, "", "minItems", "ignored"),
        ({"type": "array", "items": WORD, "uniqueItems": True}, "", "uniqueItems", "ignored"),
        ({"type": "array", "items": WORD, "minItems": 3, "maxItems": 2}, "", "minItems", "fatal"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "", "minimum", "fatal"),
        ({"$ref": "#/$defs/a", "$defs": {"a": WORD}}, "", "$ref", "enforced"),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "", "$ref", "refused"),
        ({"properties": {"a": True}}, "/properties/a", "true", "refused"),
        (UNSATISFIABLE, "", "required", "excluded"),
        ({**OPEN_OBJECT, "required": ["a"]}, "", "required", "ignored"),
        ({"type": "string", "allOf": [{"minLength": 3}]}, "", "allOf", "excluded"),
        ({"properties": {"b": UNSATISFIABLE}}, "/properties/b", "required", "distorted"),
    ],
)  # fmt: skip
def test_each_keyword_has_its_effect(schema, pointer, keyword, effect):
    effects = {(each.pointer, each.keyword, each.effect) for each in findings(schema)}
    assert (pointer, keyword, effect) in effects


RECURSIVE = {"$ref": "#/$defs/node"}
NODE = {"type": "object", "properties": {"next": RECURSIVE}}


@pytest.mark.parametrize(
    ("schema", "modes"),
    [
        ({"type": "object"}, ALL),
        ({"type": "array", "items": WORD}, ("grammar", "prompt")),
        ({"type": "integer"}, ("grammar", "prompt")),
        ({"enum": ["a", "b"]}, ("grammar", "prompt")),
        ({"enum": ["a", {"b": 1}]}, ALL),
        ({"anyOf": [WORD, {"type": "object"}]}, ALL),
        ({"anyOf": [WORD, {"type": "null"}]}, ("grammar", "prompt")),
        ({"type": ["object", "null"]}, ALL),
        ({}, ALL),
        ({**RECURSIVE, "$defs": {"node": NODE}}, ALL),
        ({**RECURSIVE, "$defs": {"node": {"allOf": [NODE]}}}, ("json", "prompt")),
        ({"type": "object", "properties": {"a": {"enum": []}}}, ("json", "prompt")),
        ({"properties": {}, "required": ["a"]}, ("json", "prompt")),
    ],
)
def test_a_schema_gets_the_modes_that_suit_it(schema, modes):
    assert structured.check_schema(schema).modes == modes


def test_sub_schemas_that_the_converter_does_not_read_have_no_findings():
    schema = {"not": {"enum": []}, "$defs": {"unused": {"enum": []}}}
    assert findings(schema) == {
        GrammarFinding((), "not", "ignored", "the grammar cannot express it"),
    }


def test_keywords_are_enforced_in_grammar_mode_only():
    schema = structured.check_schema({"type": "number", "minimum": 1})
    assert schema.keywords("grammar").enforced == ("type",)
    assert schema.keywords("grammar").ignored == ("minimum",)
    assert schema.keywords("json").enforced == ()
    assert schema.keywords("json").ignored == ("minimum", "type")
