"""Reasoning that ends with a tag but does not begin with one, because the prompt contains it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import accumulate

from mes.domain import Logprob

_BEGIN_TAG = "<think>"
# A tag in quotes or backticks is mentioned, and ends nothing.
_END_TAG = re.compile(r"(?<![`'\"])</think>")


def split_at_end_tag(text: str) -> tuple[str, str]:
    """Return reasoning and answer of a text without reasoning before it.

    The reasoning is empty if the text has no end tag, or is JSON with the tag in a string.
    """
    end = _END_TAG.search(text)
    if end is None or _BEGIN_TAG in text[: end.start()] or _is_json(text):
        return "", text
    return text[: end.start()].strip(), text[end.end() :].lstrip()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def logprobs_after(start: int, logprobs: Iterable[Logprob]) -> list[Logprob]:
    """Return the probabilities of the tokens that begin at or after a position in the text."""
    logprobs = list(logprobs)
    begins = accumulate((len(each.token) for each in logprobs), initial=0)
    return [each for each, begin in zip(logprobs, begins, strict=False) if begin >= start]
