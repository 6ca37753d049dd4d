"""A schema is interpreted as in Ollama."""

from pathlib import Path

import pytest

from mes.embedded.api_errors import EngineRefused
from mes.embedded.grammar import _limit_items, _normalize_schema
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


MOST = 2_147_483_647


def array(**counts):
    return {"type": "array", "items": {"type": "string"}, **counts}


def test_a_count_of_items_that_no_answer_reaches_is_not_sent_to_the_engine():
    names = {"const": array(maxItems=MOST), "maxItems": array(maxItems=3), "enum": array()}
    data = {"const": {"maxItems": MOST}}
    schema = {"properties": {**names, "data": data}, "x": [{"maxItems": MOST}]}
    limited = _limit_items(schema)
    assert limited["properties"] == {**names, "const": array(), "data": data}
    assert limited["x"] == [{}]
    assert schema["x"] == [{"maxItems": MOST}]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"items": array(minItems=MOST)}, "minItems is 2147483647, the limit is 10000"),
        ({"anyOf": [array(maxItems=9_000)] * 6}, "are 54000 together, the limit is 50000"),
    ],
)
def test_counts_of_items_that_are_too_large_for_the_engine_are_refused(schema, reason):
    with pytest.raises(EngineRefused, match=reason) as caught:
        _limit_items(schema)
    assert caught.value.status == 400


def test_the_most_that_generators_write_costs_no_memory(client, program):
    client.generate(MODEL, keep_alive=-1)
    (child,) = program.children
    schema = {"type": "object", "properties": {"a": array(maxItems=MOST)}, "required": ["a"]}
    options = {"num_predict": 16, "temperature": 0}
    reply = client.generate(MODEL, prompt="Hello", format=schema, options=options)
    assert reply.response.startswith("{")
    assert program.children == [child]
    assert peak_megabytes(child) < 1000


def peak_megabytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
