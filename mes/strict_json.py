"""Strict JSON: no duplicate keys, NaN, infinity, lone surrogates or unlimited nesting."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate, islice
from typing import Any

# A JSON Schema of the default SCHEMA_MAX_DEPTH has about 70 levels.
MAX_DEPTH = 128

# A string, or the rest of the text if the string does not end. The possessive quantifier makes it
# take linear time.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# A text up to the next character that a value or a key follows, or the rest of the text.
_TO_NEXT_VALUE = re.compile(
    r'(?:"(?:[^"\\]++|\\.)*+"?|[^",:\[{]++|[\[{](?=\s*[\]}]))*+(?:([,:\[{])|\Z)', re.DOTALL
)
_NOT_BRACKETS = re.compile(r"[^][{}]+")
_DEPTH_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class NotJson(ValueError):
    """The text is not JSON; the message says where and why."""


class TooManyValues(NotJson):
    """The text has more values than allowed; the message has the limit."""


def parse_json(
    text: str | bytes, *, max_depth: int = MAX_DEPTH, max_values: int | None = None
) -> Any:
    """Return the value of a JSON text. A byte order mark at the start of bytes is skipped.

    A text that is nested deeper than `max_depth` levels, or that has more than `max_values` values
    and keys, is refused before it is parsed.

    Raises NotJson.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8").removeprefix("\ufeff")
        if max_values is not None:
            _check_values(text, max_values)
        _check_depth(text, max_depth)
        value = json.loads(
            text,
            object_pairs_hook=_build_object,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
    except NotJson:
        raise
    except UnicodeDecodeError as exc:
        raise NotJson(f"not UTF-8 at byte {exc.start}") from exc
    except RecursionError as exc:
        raise NotJson("nested too deeply") from exc
    except ValueError as exc:
        raise NotJson(str(exc)) from exc
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_values(text: str, max_values: int) -> None:
    if sum(map(text.count, ",:[{")) < max_values:
        return  # the case of nearly all texts, and cheap to check
    found = islice(_TO_NEXT_VALUE.finditer(text), max_values)
    if sum(1 for each in found if each[1]) == max_values:
        raise TooManyValues(f"more than {max_values:,} values and keys")


def _check_depth(text: str, max_depth: int) -> None:
    if text.count("[") + text.count("{") <= max_depth:
        return  # the case of nearly all texts, and cheap to check
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text))
    if max(accumulate(map(_DEPTH_STEPS.__getitem__, brackets)), default=0) > max_depth:
        raise NotJson(f"nested deeper than {max_depth} levels")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        duplicate, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise NotJson(f"the key {duplicate[:80]!a} appears twice in one object")
    return result


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is not a JSON value")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotJson(f"the number {digits[:40]} is too large")
    return number


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise NotJson("a lone surrogate in a string") from exc
