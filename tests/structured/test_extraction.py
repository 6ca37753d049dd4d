"""Extraction of JSON from the text of an answer: the whole text, a fence or prose."""

from __future__ import annotations

import time

import pytest

from mes.strict_json import NotJson
from mes.structured.validation import extract


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
