"""Schemas of tools: the time that their checks may take, and one schema for all calls."""

from __future__ import annotations

from functools import partial

import pytest

from mes.domain import ToolCall
from mes.structured import tools
from mes.structured.schema import check_schema
from mes.structured.schema_tree import SchemaLimits
from mes.structured.tools import schema_of_calls, tool_schemas


def tool(name, **parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def verdict(schema, name, **arguments):
    call = f'{{"name": "{name}", "arguments": {ToolCall("1", name, arguments).arguments_text}}}'
    return schema.validate_answer(call, "stop").verdict


def test_schemas_that_take_too_long_together_are_not_checked(monkeypatch):
    monkeypatch.setattr(tools, "_MOST_SECONDS_TO_CHECK", -1.0)
    checked = tool_schemas([tool("a"), tool("b")], check_schema)
    assert checked.validate_call(ToolCall("1", "b", {})).verdict == "undecided"
    assert "took too long" in checked.validate_call(ToolCall("1", "b", {})).errors[0].detail


@pytest.mark.parametrize(
    "reference", ["#/$defs/Zone", "#/properties/other", "#/$defs/Nested/properties/zone"]
)
def test_a_reference_has_the_same_meaning_in_the_schema_of_all_calls(reference):
    zone = {"enum": ["utc", "local"]}
    parameters = {
        "properties": {"zone": {"$ref": reference}, "other": zone},
        "$defs": {"Zone": zone, "Nested": {"properties": {"zone": zone}}},
    }
    checked = tool_schemas([tool("a", type="object"), tool("b", **parameters)], check_schema)
    schema = schema_of_calls(checked, check_schema)
    assert verdict(schema, "b", zone="utc") == "valid"
    assert verdict(schema, "b", zone="mars") == "schema_violation"
    assert verdict(schema, "a", zone="mars") == "valid"


def test_a_recursive_schema_refers_to_its_own_root():
    parameters = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": {"type": "number"}}}
    schema = schema_of_calls(
        tool_schemas([tool("a", **parameters), tool("b")], check_schema), check_schema
    )
    assert verdict(schema, "a", child={"child": {"n": 1}}) == "valid"
    assert verdict(schema, "a", child={"child": {"n": "1"}}) == "schema_violation"


def test_data_that_looks_like_a_reference_stays_as_it_is():
    parameters = {"properties": {"a": {"const": {"$ref": "#/x"}}}}
    checked = tool_schemas([tool("a", **parameters), tool("b")], check_schema)
    schema = schema_of_calls(checked, check_schema)
    assert verdict(schema, "a", a={"$ref": "#/x"}) == "valid"


@pytest.mark.parametrize(
    "strange",
    [{"$schema": "http://json-schema.org/draft-04/schema#", "type": "object"}, {"type": "strin"}],
)
def test_a_tool_that_does_not_fit_the_grammar_may_have_any_object(strange):
    checked = tool_schemas([tool("a", **strange), tool("b", required=["x"])], check_schema)
    schema = schema_of_calls(checked, check_schema)
    assert verdict(schema, "a", anything=1) == "valid"
    assert verdict(schema, "b", anything=1) == "schema_violation"


def test_schemas_that_are_too_large_together_leave_the_names():
    check = partial(check_schema, limits=SchemaLimits(subschemas=8))
    large = {"properties": {letter: {"type": "string"} for letter in "vwxyz"}}
    checked = tool_schemas([tool("a", **large), tool("b", **large)], check)
    assert not checked.unchecked
    schema = schema_of_calls(checked, check)
    assert verdict(schema, "a", v=1) == "valid"
    assert verdict(schema, "c") == "schema_violation"
