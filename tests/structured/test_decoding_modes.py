"""Decoding modes: the effect of keywords in llama.cpp's grammar, and the modes that suit."""

from __future__ import annotations

import json

import pytest

from mes import structured
from mes.structured.decoding_modes import GrammarFinding

ALL = ("grammar", "json", "prompt")
WORD = {"type": "string"}
OPEN_OBJECT = {"properties": {}, "additionalProperties": True}
UNSATISFIABLE = {"properties": {}, "required": ["a"], "additionalProperties": False}


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
        ({"type": "string", "minLength": 5000}, "", "minLength", "omitted"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "", "pattern", "enforced"),
        ({"type": "string", "pattern": "[a-z]+"}, "", "pattern", "omitted"),
        ({"type": "string", "pattern": r"^\d+$"}, "", "pattern", "omitted"),
        ({"type": "string", "pattern": "^*a$"}, "", "pattern", "omitted"),
        ({"type": "string", "pattern": r"^(?:a|\(+)[*+?]$"}, "", "pattern", "enforced"),
        ({"type": "string", "format": "date"}, "", "format", "enforced"),
        ({"type": "string", "format": "email"}, "", "format", "ignored"),
        ({"enum": ["a"], "maxLength": 1}, "", "maxLength", "ignored"),
        ({"oneOf": [WORD]}, "", "oneOf", "ignored"),
        ({"anyOf": [WORD, {"multipleOf": 2}]}, "/anyOf/1", "multipleOf", "ignored"),
        ({"type": "array", "items": WORD, "minItems": 2}, "", "minItems", "enforced"),
        ({"type": "array", "minItems": 2}, "", "minItems", "ignored"),
        ({"type": "array", "items": WORD, "uniqueItems": True}, "", "uniqueItems", "ignored"),
        ({"type": "array", "items": WORD, "minItems": 3, "maxItems": 2}, "", "minItems", "omitted"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "", "minimum", "omitted"),
        ({"$ref": "#/$defs/a", "$defs": {"a": WORD}}, "", "$ref", "enforced"),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "", "$ref", "enforced"),
        ({"properties": {"a": False}}, "", "properties", "enforced"),
        ({"properties": {"a": {"items": False}}}, "/properties/a/items", "false", "omitted"),
        ({"properties": {"$ref": {}}}, "", "properties", "refused"),
        ({"type": "object", "properties": {"a": {"enum": []}}}, "/properties/a", "enum", "fatal"),
        (UNSATISFIABLE, "", "required", "excluded"),
        ({"properties": {}, "required": ["a"]}, "", "required", "enforced"),
        ({**OPEN_OBJECT, "required": ["a"]}, "", "required", "ignored"),
        ({"type": "string", "allOf": [{"minLength": 3}]}, "", "minLength", "enforced"),
        ({"type": "string", "allOf": [{}, {"minLength": 3}]}, "", "allOf", "omitted"),
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
        ({**RECURSIVE, "$defs": {"node": {"allOf": [NODE]}}}, ALL),
        ({"type": "object", "properties": {"a": {"enum": []}}}, ("json", "prompt")),
        ({"properties": {}, "required": ["a"]}, ALL),
        (UNSATISFIABLE, ("json", "prompt")),
    ],
)
def test_a_schema_gets_the_modes_that_suit_it(schema, modes):
    assert structured.check_schema(schema).modes == modes


TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "x": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "copy"),
    [
        (
            {"type": "string", "minLength": 5000, "maxLength": 10_000},
            {"type": "string", "maxLength": 10_000},
        ),
        (
            {"type": "string", "pattern": "a(?=b)", "maxLength": 5},
            {"type": "string", "maxLength": 5},
        ),
        ({"properties": {"a": True, "b": False}}, {"properties": {"a": {}}}),
        ({"anyOf": [True, WORD]}, {"anyOf": [{}, WORD]}),
        (
            {"properties": {"a": WORD}, "required": ["b"]},
            {"properties": {"a": WORD, "b": {}}, "required": ["b"]},
        ),
        (
            {"type": "array", "items": WORD, "minItems": 3, "maxItems": 2},
            {"type": "array", "items": WORD, "maxItems": 2},
        ),
        ({"type": "string", "allOf": [{"minLength": 3}]}, {"type": "string", "minLength": 3}),
        (
            {
                "$defs": {"a/b": WORD},
                "properties": {"a": {"$ref": "#/$defs/a~1b"}, "b": {"$ref": "#/$defs/a~1b"}},
            },
            {
                "$defs": {"a/b": WORD, "reference-1": WORD},
                "properties": {
                    "a": {"$ref": "#/$defs/reference-1"},
                    "b": {"$ref": "#/$defs/reference-1"},
                },
            },
        ),
        (
            TREE,
            {
                "type": "object",
                "properties": {"left": {"$ref": "#/$defs/reference-1"}, "x": {"type": "integer"}},
                "$defs": {
                    "reference-1": {
                        "type": "object",
                        "properties": {
                            "left": {"$ref": "#/$defs/reference-1"},
                            "x": {"type": "integer"},
                        },
                    }
                },
            },
        ),
        (
            {
                **RECURSIVE,
                "$defs": {
                    "node": {"properties": {"next": {"allOf": [RECURSIVE], "title": "next"}}}
                },
            },
            {
                **RECURSIVE,
                "$defs": {"node": {"properties": {"next": {**RECURSIVE, "title": "next"}}}},
            },
        ),
    ],
)
def test_what_the_converter_refuses_is_left_out_of_a_copy(schema, copy):
    text = json.dumps(schema)
    checked = structured.check_schema(schema)
    assert checked.grammar.document == copy
    assert checked.modes[0] == "grammar"
    assert json.dumps(schema) == text
    assert json.dumps(checked.document) == text


def test_a_schema_without_such_keywords_is_sent_as_it_is():
    checked = structured.check_schema({"type": "object", "properties": {"a": WORD}})
    assert checked.grammar.document is checked.document


def test_findings_in_an_added_definition_point_to_the_original():
    schema = {"$defs": {"a b": {"type": "number", "minimum": 1}}, "$ref": "#/$defs/a b"}
    assert ("/$defs/a b", "minimum", "ignored") in {
        (each.pointer, each.keyword, each.effect) for each in findings(schema)
    }


def test_findings_point_into_the_schema_as_the_client_wrote_it():
    schema = {"items": [{"type": "number", "minimum": 1}], "dependencies": {"a": ["b"]}}
    found = {(each.pointer, each.keyword, each.effect) for each in findings(schema)}
    assert ("/items/0", "minimum", "ignored") in found
    assert ("", "items", "enforced") in found
    assert ("", "dependencies", "ignored") in found


EMBEDDED = "mes-embedded 2026.10.11549"


@pytest.mark.parametrize(
    ("schema", "keyword", "effect"),
    [
        ({"type": "string", "format": "uri"}, "format", "ignored"),
        ({"type": "string", "format": "email"}, "format", "enforced"),
        ({"type": "string", "pattern": r"^\d+"}, "pattern", "enforced"),
        ({"type": "string", "pattern": r"^[^\[\]]\{\\\(?[=!]$"}, "pattern", "enforced"),
        ({"type": "string", "pattern": "^(?!a)"}, "pattern", "omitted"),
        ({"type": "string", "pattern": r"\ba"}, "pattern", "omitted"),
        ({"patternProperties": {"(?=a)": {}}}, "patternProperties", "omitted"),
        ({"type": "string", "minLength": 5000}, "minLength", "enforced"),
        ({"type": "number", "multipleOf": 0.5}, "multipleOf", "enforced"),
        ({"uniqueItems": True}, "uniqueItems", "ignored"),
        ({"properties": {"a": True}}, "properties", "enforced"),
        (UNSATISFIABLE, "required", "excluded"),
        ({"enum": []}, "enum", "excluded"),
    ],
)
def test_the_embedded_runtime_enforces_more_keywords(schema, keyword, effect):
    checked = structured.check_schema(schema, runtime=EMBEDDED)
    assert effect in {x.effect for x in checked.report.findings if x.keyword == keyword}


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
