"""The value of an enum that was most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

# The characters of the values that are read, and the pairs that are compared: for the 20 errors of
# an answer this takes 20 ms at most.
_MOST_CHARACTERS = 10_000
_MOST_PAIRS = 6_000
_LONGEST_TEXT = 100


def nearest_value(text: Any, values: Iterable[Any]) -> str | None:
    """Return the value that is most similar to the text; None if none is.

    Values that differ only in case, blanks and punctuation come first.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_TEXT:
        return None
    texts = list(_short_texts(values))
    plain = _letters(text)
    same = next((each for each in texts if plain and _letters(each) == plain), None)
    return same or _most_similar(text, texts)


def _short_texts(values: Iterable[Any]) -> Iterator[str]:
    left = _MOST_CHARACTERS
    for value in values:
        if isinstance(value, str) and len(value) <= _LONGEST_TEXT:
            left -= len(value)
            if left < 0:
                return
            yield value


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _most_similar(text: str, values: Iterable[str]) -> str | None:
    candidates, pairs = [], 0
    for value in values:
        pairs += len(text) * len(value)
        if pairs > _MOST_PAIRS:
            break
        candidates.append(value)
    # Compared without case; the first of equal values counts.
    by_text = {value.casefold(): value for value in reversed(candidates)}
    found = difflib.get_close_matches(text.casefold(), by_text, n=1)
    return by_text[found[0]] if found else None
