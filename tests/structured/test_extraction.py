"""Extraction of JSON from the text of an answer: the whole text, a fence or prose."""

from __future__ import annotations

import time

import pytest

from mes.strict_json import NotJson
from mes.structured import check_schema
from mes.structured.extraction import extract


@pytest.mark.parametrize(
    ("text", "value", "source"),
    [
        ('{"a": 1}', {"a": 1}, "whole"),
        ("\ufeff [1, 2]\n", [1, 2], "whole"),
        ("7", 7, "whole"),
        ('"text"', "text", "whole"),
        ("null", None, "whole"),
        ('```json\n{"a": 1}\n```', {"a": 1}, "fence"),
        ('```\n{"a": 1}```', {"a": 1}, "fence"),
        ('Here:\n```JSON\n[1]\n```\nDone.', [1], "fence"),
        ('```python\nx = {}\n```\n```json\n{"a": 1}\n```', {"a": 1}, "fence"),
        ('The answer is {"a": {"b": [1]}}, I think.', {"a": {"b": [1]}}, "prose"),
        ("I choose {the first} of [1, 2].", [1, 2], "prose"),
        ('{"a": "a ``` fence\\n``` inside"} and more', {"a": "a ``` fence\n``` inside"}, "prose"),
    ],
)  # fmt: skip
def test_the_value_and_its_source_are_returned(text, value, source):
    assert extract(text) == (value, source)


OBJECT = {"type": "object"}
OBJECTS = {"type": "array", "items": {"type": "object"}}
REFERENCE = {"$defs": {"a": {"anyOf": [{"properties": {}}, {"type": "null"}]}}, "$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (OBJECT, 'As in [1] and [2, 3]: {"a": 1}. See {"b": 2}.', {"a": 1}),
        (REFERENCE, 'As in [1]: {"a": 1}', {"a": 1}),
        ({"enum": [{"a": 1}]}, 'As in [1]: {"a": 1}', {"a": 1}),
        ({"allOf": [OBJECT]}, 'As in [1]: {"a": 1}', {"a": 1}),
        ({"type": ["object", "null"]}, 'As in [1]: {"a": 1}', {"a": 1}),
        (OBJECTS, 'As in [1] and {"a": 1}: [{"b": 2}]', [{"b": 2}]),
        ({"type": "array"}, 'The object {"a": [0]} and the list [1]', [1]),
        (OBJECT, '```json\n[1]\n```\nor\n```json\n{"a": 1}\n```', {"a": 1}),
        (OBJECT, '```\nnothing\n```\n```json\n{"a": 1}\n```\n```json\n{"b": 2}\n```', {"a": 1}),
        (OBJECT, '```json\n[1]\n```\nso {"a": 1}', {"a": 1}),
        (OBJECT, '{"a": 1, "a": 2} or rather {"b": 2}', {"b": 2}),
        (OBJECT, 'Hm. <think>{"a": 1}</think> {"b": 2}', {"b": 2}),
        (OBJECT, 'I think {"a": 1}</think>\n```json\n{"b": 2}\n```', {"b": 2}),
        (OBJECT, '{"a": "</think>"} it is {"b": 2}', {"b": 2}),
        (OBJECT, '{"a": "</think>"}', {"a": "</think>"}),
        ({}, "As in [1]: {}", [1]),
    ],
)
def test_the_first_value_of_a_type_that_the_schema_allows_counts(schema, text, value):
    validation = check_schema(schema).validate_answer(text, "stop")
    assert (validation.verdict, validation.parsed) == ("valid", value)


@pytest.mark.parametrize("text", ["As in [1].", "```json\n[1]\n```", "[1]"])
def test_a_value_of_another_type_violates_the_schema(text):
    assert check_schema(OBJECT).validate_answer(text, "stop").verdict == "schema_violation"


@pytest.mark.parametrize("text", ['Hm. <think>{"a": 1}', '<think>{"a": 1}</think> nothing'])
def test_the_json_of_a_thought_is_no_answer(text):
    assert check_schema(OBJECT).validate_answer(text, "stop").verdict == "not_json"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON at all",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": 1',
        "```json\n{broken\n```",
        'The answer is {"a": 1, "a": 2}.',
        "[" * 129 + "]" * 129,
        "7 apples",
    ],
)
def test_text_without_json_is_not_json(text):
    with pytest.raises(NotJson):
        extract(text)


MEGABYTE = 1 << 20
FAST_SECONDS = 0.05
# Beside other processes even CPU times vary, so a try that seems slow is repeated.
MOST_TRIES = 10


@pytest.mark.parametrize(
    "text",
    [
        "[" * MEGABYTE,
        '{"a":' * (MEGABYTE // 5),
        "```json\n" + " " * MEGABYTE,
        "```\n" * (MEGABYTE // 4),
        "`" * MEGABYTE,
        '"' * MEGABYTE,
        "{ " * (MEGABYTE // 2),
        "[1," * (MEGABYTE // 6) + " nothing " * (MEGABYTE // 20),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.45], ids=["over the limit", "under the limit"])
def test_extraction_from_hostile_text_takes_linear_time(text, share):
    text = text[: int(len(text) * share)]
    times: list[float] = []
    while min(times, default=1.0) >= FAST_SECONDS and len(times) < MOST_TRIES:
        began = time.thread_time()
        with pytest.raises(NotJson):
            extract(text)
        times.append(time.thread_time() - began)
    assert min(times) < FAST_SECONDS


@pytest.mark.parametrize(
    "text", ["[1] " * 100_000, "```json\n[1]\n```\n" * 20_000, "[] {} " * 50_000]
)
def test_many_values_of_another_type_take_linear_time(text):
    times: list[float] = []
    while min(times, default=1.0) >= FAST_SECONDS and len(times) < MOST_TRIES:
        began = time.thread_time()
        extract(text, lambda value: value == 7)
        times.append(time.thread_time() - began)
    assert min(times) < FAST_SECONDS
