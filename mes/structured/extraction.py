"""Extraction: the one JSON value in a model's answer, wherever it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mes.strict_json import NotJson, parse_json

_FENCE = "```"
_BEGINNING = re.compile(r"[\[{]")
_MOST_CHARACTERS = 512 * 1024
_MOST_FENCES = 32
_DECODER = json.JSONDecoder()


class Extracted(NamedTuple):
    """A value, and where it stood: `whole`, in a `fence`, or in `prose`."""

    value: Any
    how: str


def extract(text: str) -> Extracted:
    """The value: the whole text, or what a Markdown fence holds, or the first one in prose.

    Takes linear time. Raises NotJson, with what is wrong with the text as a whole.
    """
    text = text.strip().lstrip("\ufeff")
    if len(text) > _MOST_CHARACTERS:
        raise NotJson(f"longer than {_MOST_CHARACTERS} characters")
    try:
        return Extracted(parse_json(text), "whole")
    except NotJson as exc:
        for candidate, how in _candidates(text):
            try:
                return Extracted(parse_json(candidate), how)
            except NotJson:
                continue
        raise exc


def _candidates(text: str) -> Iterator[tuple[str, str]]:
    for fenced in text.split(_FENCE, 2 * _MOST_FENCES)[1:-1:2]:
        language, newline, inside = fenced.partition("\n")
        if newline and language.strip().lower() in ("", "json"):
            yield inside.strip(), "fence"
    if found := _in_prose(text):
        yield found, "prose"


def _in_prose(text: str) -> str | None:
    """The first text that is a JSON object or array."""
    left = len(text)
    for found in _BEGINNING.finditer(text):
        try:
            _, end = _DECODER.raw_decode(text, found.start())
            return text[found.start() : end]
        except json.JSONDecodeError as exc:
            # Text is read again for each beginning in it, and its lines are counted for the error.
            left -= exc.pos - found.start() + exc.pos // 16
        except (ValueError, RecursionError):
            return None
        if left < 0:
            return None
    return None
