"""Counts that a runtime's grammar would expand beyond measure do not reach a runtime."""

from __future__ import annotations

import pytest

from mes import structured
from mes.domain import ToolCall
from mes.errors import SchemaUnsafe
from mes.structured.schema import check_schema
from mes.structured.tools import tool_schemas

MOST = 2_147_483_647
WORD = {"type": "string"}
ENGINES = pytest.mark.parametrize("runtime", [None, "ollama 0.33.0", "mes-embedded 2026.10.11549"])


def array(items=WORD, **counts):
    return {"type": "array", "items": items, **counts}


def nested(levels, **counts):
    return array(nested(levels - 1, **counts), **counts) if levels else WORD


def omitted(checked):
    return {(x.pointer, x.keyword) for x in checked.report.findings if x.effect == "omitted"}


@ENGINES
@pytest.mark.parametrize(
    ("schema", "keyword", "copy"),
    [
        (array(maxItems=MOST), "maxItems", array()),
        (array(minItems=MOST), "minItems", array()),
        (array(minItems=2, maxItems=1e300), "maxItems", array(minItems=2)),
        ({"maxItems": MOST}, "maxItems", {}),
        ({"type": "string", "maxLength": MOST}, "maxLength", WORD),
        ({"type": "string", "minLength": MOST}, "minLength", WORD),
        ({"type": "object", "maxProperties": MOST}, "maxProperties", {"type": "object"}),
        ({"type": "object", "minProperties": MOST}, "minProperties", {"type": "object"}),
        ({**WORD, "pattern": "^(a{101}b){100}$"}, "pattern", WORD),
        ({"patternProperties": {"^(a{101}b){100}$": {}}}, "patternProperties", {}),
    ],
)
def test_a_count_that_is_too_large_is_left_out_and_reported(schema, keyword, copy, runtime):
    checked = structured.check_schema(schema, runtime=runtime)
    assert checked.grammar.document == copy
    assert omitted(checked) == {("", keyword)}
    assert checked.modes[0] == "grammar"


@ENGINES
def test_a_count_behind_a_reference_is_left_out(runtime):
    schema = {"$ref": "#/x/list", "x": {"list": array(maxItems=MOST)}}
    checked = structured.check_schema(schema, runtime=runtime)
    assert checked.grammar.document == {"$ref": "#/x/list", "x": {"list": array()}}


@ENGINES
@pytest.mark.parametrize("keyword", ["minItems", "maxItems"])
def test_the_product_of_nested_counts_is_limited(keyword, runtime):
    checked = structured.check_schema(nested(4, **{keyword: 1000}), runtime=runtime)
    assert omitted(checked) == {("/items/items", keyword), ("/items/items/items", keyword)}
    outer = array(nested(2), **{keyword: 1000})
    assert checked.grammar.document == array(outer, **{keyword: 1000})


@ENGINES
def test_the_sum_of_all_counts_is_limited_and_the_smallest_are_kept(runtime):
    counts = (9_000, 8_000, 7_000, 10, 20)
    properties = {str(count): array(maxItems=count) for count in counts}
    checked = structured.check_schema({"properties": properties}, runtime=runtime)
    assert omitted(checked) == {("/properties/9000", "maxItems")}


@ENGINES
def test_ordinary_counts_stay(runtime):
    schema = array(nested(1, minItems=1, maxItems=1000), maxItems=1000)
    assert structured.check_schema(schema, runtime=runtime).grammar.document == schema


def test_the_answer_is_validated_against_the_counts_that_were_left_out():
    checked = structured.check_schema(array(minItems=MOST))
    assert checked.validate_answer('["a"]', "stop").verdict == "schema_violation"


@pytest.mark.parametrize("pattern", ["a{2147483647}", "a{0,2147483647}", "(?=b)a{9999999999999}"])
def test_a_pattern_with_a_huge_count_is_refused_with_the_remedy(pattern):
    with pytest.raises(SchemaUnsafe, match="use lower repetition counts"):
        structured.check_schema({"pattern": pattern})


def tool(**parameters):
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def test_tools_are_offered_without_the_counts_that_are_too_large():
    offered = tool(type="object", properties={"a": array(minItems=1, maxItems=MOST)})
    schemas = tool_schemas([offered], check_schema)
    assert schemas.offered(offered) == tool(type="object", properties={"a": array(minItems=1)})
    assert schemas.validate_call(ToolCall("1", "f", {"a": []})).verdict == "schema_violation"


def test_tools_with_ordinary_counts_are_offered_as_they_are():
    offered = tool(type="object", properties={"a": array(maxItems=10)})
    assert tool_schemas([offered], check_schema).offered(offered) is offered


def test_tools_whose_schema_is_invalid_are_offered_without_counts_and_huge_patterns():
    declared = {"maxItems": array(maxItems=MOST), "b": {"pattern": "a{2147483647}", "const": 1}}
    declared["c"] = {"patternProperties": {"a{2147483647}": {}}, "pattern": "("}
    declared["d"] = {"patternProperties": 5}
    offered = tool(type="thing", properties=declared)
    schemas = tool_schemas([offered], check_schema)
    assert schemas.unchecked
    without = {"maxItems": array(), "b": {"const": 1}, "c": {"pattern": "("}, "d": declared["d"]}
    expected = tool(type="thing", properties=without)
    assert schemas.offered(offered) == expected
