"""Strict JSON: the depth of a text is checked before it is parsed, in linear time."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mes.strict_json import NotJson, parse_json

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


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 200_000,
        '"[{' * 300_000,
        '"\\' * 500_000 + "[" * 100,
        "[" + "[]," * 300_000 + "[]]",
    ],
)
def test_no_text_of_a_megabyte_takes_long(text):
    began = time.monotonic()
    try:
        parse_json(text, max_depth=64)
    except NotJson:
        pass
    # It takes some tenths of a second; a scan in quadratic time would take hours.
    assert time.monotonic() - began < 10
