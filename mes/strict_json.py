"""Strict JSON: no duplicate keys, no NaN or infinity, no lone surrogates, no bottomless nesting."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate
from typing import Any

# A JSON Schema as deep as SCHEMA_MAX_DEPTH lets it be by default takes some 70 levels.
DEEPEST = 128

# A string, or the rest of the text where one does not end: each character is looked at once.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NEITHER_IN_NOR_OUT = re.compile(r"[^][{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class NotJson(ValueError):
    """The text is not JSON; the message says where and why."""


def parse_json(text: str | bytes, *, deepest: int = DEEPEST) -> Any:
    """The value that the text stands for, all of it. Raises NotJson.

    What is nested deeper than `deepest` is refused before it is parsed.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        _refuse_deeper(text, deepest)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
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
        _refuse_lone_surrogates(value)
    return value


def _refuse_deeper(text: str, deepest: int) -> None:
    if text.count("[") + text.count("{") <= deepest:
        return  # as nearly always: no need to look where the strings are
    brackets = _NEITHER_IN_NOR_OUT.sub("", _STRING.sub("", text))
    if any(depth > deepest for depth in accumulate(_STEPS[each] for each in brackets)):
        raise NotJson(f"nested deeper than {deepest} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise NotJson(f"the key {twice[:80]!a} stands twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotJson(f"the number {digits[:40]} is too large")
    return number


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise NotJson("half of a surrogate pair in a string") from exc
