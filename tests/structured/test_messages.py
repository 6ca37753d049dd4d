"""Descriptions of violations."""

from __future__ import annotations

import json
import time

import pytest

from mes import structured

STATES = ["in_progress", "Done", "cancelled", 7, None]


def detail(schema, value):
    """Return the description of the first violation."""
    checked = structured.check_schema(schema)
    return checked.validate_answer(json.dumps(value), "stop").errors[0].detail


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        ("In Progress", "in_progress"),
        ("done", "Done"),
        ("canceled", "cancelled"),
        ("CANCELED", "cancelled"),
    ],
)
def test_a_mistake_in_an_enum_names_the_nearest_value(value, nearest):
    assert detail({"enum": STATES}, value).endswith(f'; nearest: "{nearest}"')
    inside = {"properties": {"state": {"enum": STATES}}}
    assert detail(inside, {"state": value}).endswith(f'; nearest: "{nearest}"')
    choice = {"anyOf": [{"type": "string", "enum": STATES}]}
    assert detail(choice, value).endswith(f'; nearest: "{nearest}"')


@pytest.mark.parametrize("value", ["zzz", "", 8, True, None, [], {}, "d" * 1_000])
def test_a_value_that_resembles_none_names_none(value):
    assert "; nearest: " not in detail({"enum": ["in_progress", "Done"]}, value)


def test_the_nearest_value_of_a_long_enum_fits_into_the_description():
    values = [f"a fairly long value with the number {n}" for n in range(200)]
    text = detail({"enum": values}, "A fairly long value, with the number 199")
    assert text.endswith(f'; nearest: "{values[-1]}"')
    assert len(text) <= 200


def test_the_search_for_nearest_values_takes_little_time():
    schema = structured.check_schema({"items": {"enum": ["a" * 40 + str(n) for n in range(2_000)]}})
    answer = json.dumps(["a" * 45] * 20)
    times = []
    while min(times, default=1.0) >= 0.05 and len(times) < 10:
        began = time.thread_time()
        schema.validate_answer(answer, "stop")
        times.append(time.thread_time() - began)
    assert min(times) < 0.05
