"""Older, loose and misspelt forms of a schema are read as what they mean."""

from __future__ import annotations

import hashlib
import json

import pytest

from mes import structured
from mes.errors import SchemaInvalid
from mes.structured.normalize import is_needed, normalize

DRAFT_4 = "http://json-schema.org/draft-04/schema"
DRAFT_6 = "http://json-schema.org/draft-06/schema"
DRAFT_7 = "http://json-schema.org/draft-07/schema"
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"

SPELLINGS = {
    "http://json-schema.org/draft-04/schema#": DRAFT_4,
    "https://json-schema.org/draft-04/schema": DRAFT_4,
    "http://json-schema.org/draft-05/schema#": DRAFT_4,
    "https://json-schema.org/draft-06/schema#": DRAFT_6,
    "https://json-schema.org/draft-07/schema#": DRAFT_7,
    "https://json-schema.org/draft-07/schema": DRAFT_7,
    "http://json-schema.org/draft-07/schema#/": DRAFT_7,
    "http://json-schema.org/draft-07/": DRAFT_7,
    "http://json-schema.org/draft-07#": DRAFT_7,
    "http://json-schema.org/draft/2019-09/schema#": DRAFT_2019,
    "http://json-schema.org/draft/2020-12/schema": DRAFT_2020,
    "https://json-schema.org/draft/2020-12/schema#": DRAFT_2020,
    "https://json-schema.org/draft/2020-12": DRAFT_2020,
    "http://json-schema.org/schema#": DRAFT_2020,
    "https://json-schema.org/schema": DRAFT_2020,
}
# Each with an answer that is valid and one that is not.
FORMS = [
    ({"type": "string", "description": None, "title": None}, '"a"', "1"),
    ({"type": "object", "required": None, "properties": None}, "{}", "1"),
    ({"properties": {"a": {"enum": None, "type": "integer"}}}, '{"a": 1}', '{"a": ""}'),
    ({"properties": {"title": {"type": "null"}}}, '{"title": null}', '{"title": 1}'),
    ({"const": None}, "null", "1"),
    ({"items": [{"type": "integer"}, {}]}, '[1, "a", "b"]', '["a"]'),
    ({"items": [{}], "additionalItems": False}, "[1]", "[1, 2]"),
    ({"items": [], "additionalItems": {"type": "null"}}, "[null]", "[1]"),
    ({"minimum": 1, "exclusiveMinimum": True}, "2", "1"),
    ({"minimum": 1, "exclusiveMinimum": False}, "1", "0"),
    ({"maximum": 1, "exclusiveMaximum": True}, "0", "1"),
    ({"$schema": DRAFT_7, "maximum": 1, "exclusiveMaximum": True}, "0", "1"),
    ({"$schema": DRAFT_4, "maximum": 1, "exclusiveMaximum": True}, "0", "1"),
    ({"$schema": DRAFT_7, "items": [{"type": "integer"}]}, "[1]", '["a"]'),
    ({"dependencies": {"a": ["b"]}}, '{"a": 1, "b": 1}', '{"a": 1}'),
    ({"dependencies": {"a": {"required": ["b"]}}}, '{"a": 1, "b": 1}', '{"a": 1}'),
    ({"definitions": {"a": {"type": "null"}}, "$ref": "#/definitions/a"}, "null", "1"),
    ({"$defs": {"Resp[int]": {"type": "null"}}, "$ref": "#/$defs/Resp[int]"}, "null", "1"),
    ({"$defs": {"Resp[int]": {"type": "null"}}, "$ref": "#/$defs/Resp%5Bint%5D"}, "null", "1"),
    ({"$defs": {"a <b>|^": {"type": "null"}}, "$ref": "#/$defs/a <b>|^"}, "null", "1"),
    ({"$defs": {"100%": {"type": "null"}}, "$ref": "#/$defs/100%"}, "null", "1"),
    ({"$defs": {"Größe": {"type": "null"}}, "$ref": "#/$defs/Größe"}, "null", "1"),
    ({"$defs": {"a~b/c": {"type": "null"}}, "$ref": "#/$defs/a~0b~1c"}, "null", "1"),
    ({"x": {"y": {"items": [{"type": "null"}]}}, "$ref": "#/x/y"}, "[null]", "[1]"),
    ({"not": {"items": [{"type": "null"}]}}, "[1]", "[null]"),
]  # fmt: skip


@pytest.mark.parametrize("address", SPELLINGS)
def test_each_spelling_of_a_dialect_selects_it(address):
    assert structured.check_schema({"$schema": address}).dialect == SPELLINGS[address]
    inner = {"$schema": address, "properties": {"a": {"$schema": address}}}
    assert structured.check_schema(inner).dialect == SPELLINGS[address]


@pytest.mark.parametrize(
    "address", ["http://example.com/schema", "http://json-schema.org/draft-03/schema#", 7]
)
def test_another_dialect_is_invalid(address):
    with pytest.raises(SchemaInvalid):
        structured.check_schema({"$schema": address})


@pytest.mark.parametrize(("schema", "valid", "invalid"), FORMS, ids=lambda each: str(each)[:60])
def test_a_form_is_read_as_what_it_means(schema, valid, invalid):
    checked = structured.check_schema(schema)
    assert checked.validate_answer(valid, "stop").verdict == "valid"
    assert checked.validate_answer(invalid, "stop").verdict == "schema_violation"


@pytest.mark.parametrize("schema", [form for form, _, _ in FORMS], ids=lambda each: str(each)[:60])
def test_text_and_hash_are_those_of_the_client(schema):
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    checked = structured.check_schema(schema)
    assert checked.text == text
    assert checked.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_schemas_without_such_forms_are_recognized_by_their_text():
    plain = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"a": {"$ref": "#/definitions/a_b-c"}, "items": {"type": "null"}},
        "exclusiveMinimum": 1,
    }
    assert not is_needed(json.dumps(plain, separators=(",", ":")))
    # A schema that names its dialect, or escapes its references, has nothing to be rewritten.
    rewritten = [form for form, _, _ in FORMS if normalized(form) != form]
    assert len(rewritten) > 15
    assert all(is_needed(json.dumps(form, separators=(",", ":"))) for form in rewritten)


def normalized(schema):
    copy = json.loads(json.dumps(schema))
    normalize(copy)
    return copy


@pytest.mark.parametrize(("schema", "valid", "invalid"), FORMS, ids=lambda each: str(each)[:60])
def test_a_normalized_schema_stays_the_same(schema, valid, invalid):
    once = json.loads(json.dumps(schema))
    normalize(once)
    twice = json.loads(json.dumps(once))
    normalize(twice)
    assert twice == once


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"items": [{"type": "wrong"}]}, "/json_schema/items/0/type"),
        ({"items": [{}], "additionalItems": {"type": 5}}, "/json_schema/additionalItems/type"),
        ({"dependencies": {"a": {"minimum": "x"}}}, "/json_schema/dependencies/a/minimum"),
        ({"$defs": {"items": {"items": {"type": 5}}}}, "/json_schema/$defs/items/items/type"),
    ],
)  # fmt: skip
def test_errors_point_into_the_schema_as_the_client_wrote_it(schema, pointer):
    with pytest.raises(SchemaInvalid) as error:
        structured.check_schema(schema)
    assert error.value.mistakes[0].pointer == pointer


@pytest.mark.parametrize(
    "schema", [{"type": None}, {"properties": {"a": None}}, {"required": True}, {"items": [1]}]
)
def test_a_form_with_an_unclear_meaning_stays_invalid(schema):
    with pytest.raises(SchemaInvalid):
        structured.check_schema(schema)
