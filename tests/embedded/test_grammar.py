"""A schema is read as Ollama reads it."""

from mes.embedded.grammar import _as_ollama_reads_it


def read(schema):
    return {k: v for k, v in _as_ollama_reads_it(schema).items() if k != "x-guidance"}


def test_only_declared_properties_are_allowed_where_the_schema_is_silent():
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = {"properties": {"list": {"items": inner}, "b": {"type": "null"}}}
    closed = read(schema)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["list"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in closed["properties"]["b"]


def test_what_the_schema_says_about_further_properties_stands():
    schema = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert read(schema) == schema


def test_schemas_that_compose_are_left_open():
    schema = {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}, "required": ["b"]}]}
    assert read(schema) == schema


def test_a_property_may_be_called_properties():
    schema = {"properties": {"properties": {"type": "string"}}}
    assert read(schema)["properties"] == schema["properties"]


def test_the_order_of_the_properties_is_kept():
    schema = {"properties": {"name": {}, "age": {}}}
    assert list(read(schema)["properties"]) == ["name", "age"]
