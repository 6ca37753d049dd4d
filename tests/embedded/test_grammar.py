"""A schema is interpreted as in Ollama."""

from mes.embedded.grammar import _normalize_schema


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


def test_a_property_may_be_called_properties():
    schema = {"properties": {"properties": {"type": "string"}}}
    assert normalize(schema)["properties"] == schema["properties"]


def test_the_order_of_the_properties_is_kept():
    schema = {"properties": {"name": {}, "age": {}}}
    assert list(normalize(schema)["properties"]) == ["name", "age"]
