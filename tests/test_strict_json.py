"""Strict JSON: the depth of a text is checked before it is parsed, in linear time."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mes.strict_json import NotJson, TooManyValues, parse_json

VALUES = st.recursive(
    st.none() | st.text(alphabet='a"\\[]{}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("[{a"), inner, max_size=3),
)


def depth(value: object) -> int:
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inside), default=0) if isinstance(value, list | dict) else 0


@given(VALUES, st.integers(0, 6))
def test_only_texts_nested_deeper_than_the_limit_are_refused(value, max_depth):
    if depth(value) <= max_depth:
        assert parse_json(json.dumps(value), max_depth=max_depth) == value
    else:
        with pytest.raises(NotJson, match=f"nested deeper than {max_depth} levels"):
            parse_json(json.dumps(value), max_depth=max_depth)


def size(value: object) -> int:
    """Return the number of values and keys."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(size, value.values()))
    return 1 + (sum(map(size, value)) if isinstance(value, list) else 0)


@given(VALUES, st.integers(1, 20))
def test_only_texts_with_more_values_than_the_limit_are_refused(value, max_values):
    text = json.dumps(value)
    if size(value) <= max_values:
        assert parse_json(text, max_values=max_values) == value
    else:
        with pytest.raises(TooManyValues, match=f"more than {max_values} values"):
            parse_json(text, max_values=max_values)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf[1]", b"[1]"])
def test_a_byte_order_mark_is_skipped(text):
    assert parse_json(text) == [1]


def test_only_one_byte_order_mark_at_the_start_is_skipped():
    for text in (b"\xef\xbb\xbf\xef\xbb\xbf[1]", b"[\xef\xbb\xbf1]"):
        with pytest.raises(NotJson):
            parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '["",' * 250_000,
        ' "' * 500_000 + "," * 600_000,
        '{"a":' * 200_000,
        '"[{' * 300_000,
        '"\\' * 500_000 + "[" * 100,
        "[" + "[]," * 300_000 + "[]]",
    ],
)
def test_no_text_of_a_megabyte_takes_long(text):
    began = time.monotonic()
    try:
        parse_json(text, max_depth=64, max_values=500_000)
    except NotJson:
        pass
    # It takes some tenths of a second; a scan in quadratic time would take hours.
    assert time.monotonic() - began < 10
