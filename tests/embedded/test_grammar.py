"""A schema is interpreted as in Ollama."""

import pytest

from mes.embedded.grammar import _normalize_schema
from tests.embedded.conftest import MODEL


def normalize(schema):
    return {k: v for k, v in _normalize_schema(schema).items() if k != "x-guidance"}


def test_undeclared_properties_are_excluded_by_default():
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = {"properties": {"list": {"items": inner}, "b": {"type": "null"}}}
    closed = normalize(schema)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["list"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in closed["properties"]["b"]


def test_additional_properties_of_the_schema_are_kept():
    schema = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert normalize(schema) == schema


def test_schemas_that_compose_are_left_open():
    schema = {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}, "required": ["b"]}]}
    assert normalize(schema) == schema


def test_an_object_stays_open_if_it_requires_a_property_that_it_does_not_declare():
    schema = {"properties": {"a": {}}, "required": ["b"]}
    assert normalize(schema) == schema


UNKNOWN = {
    "array": {
        "items": {"type": "integer"},
        "uniqueItems": True,
        "contains": {"const": 1},
        "minContains": 1,
        "unevaluatedItems": False,
    },
    "object": {
        "propertyNames": {"minLength": 1},
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"a": {}},
        "dependencies": {"a": ["b"]},
        "unevaluatedProperties": {},
    },
    "integer": {"not": {"const": 1}, "if": {"const": 2}, "then": {}, "else": {}},
}
FORMATS = (
    "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname",
    "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template",
    "json-pointer", "relative-json-pointer", "regex", "int32", "double", "password", "made-up",
)  # fmt: skip
DECLARED = {
    **{f"of {name}": {"type": "string", "format": name} for name in FORMATS},
    **{f"an {name}": {"type": name, **keywords} for name, keywords in UNKNOWN.items()},
}


@pytest.mark.parametrize("name", DECLARED)
def test_no_format_and_no_unknown_keyword_costs_the_rest_of_the_grammar(client, name):
    properties = {"verdict": {"enum": ["yes", "no"]}, name: DECLARED[name]}
    schema = {"type": "object", "properties": properties, "required": ["verdict"]}
    options = {"num_predict": 8, "temperature": 0}
    reply = client.generate(MODEL, prompt="Hello", format=schema, options=options)
    assert reply.response.startswith("{")


def test_a_property_may_be_called_properties():
    schema = {"properties": {"properties": {"type": "string"}}}
    assert normalize(schema)["properties"] == schema["properties"]


def test_the_order_of_the_properties_is_kept():
    schema = {"properties": {"name": {}, "age": {}}}
    assert list(normalize(schema)["properties"]) == ["name", "age"]
