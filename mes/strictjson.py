"""Strict JSON: no duplicate keys, no NaN or infinity, no lone surrogates, no bottomless nesting."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

# Deeper than any honest document, and far from where the parser's own recursion ends.
DEEPEST = 128

# A string counts as one token, so that brackets in it do not count.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]+|[\]}]+', re.DOTALL)


class NotJson(ValueError):
    """The text is not JSON; the message says where and why."""


def parse(text: str | bytes) -> Any:
    """The value that the text stands for, all of it. Raises NotJson."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        _refuse_depth(text)
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


def _refuse_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0][0] in "[{":
            depth += len(token[0])
        elif token[0][0] in "]}":
            depth -= len(token[0])
        if depth > DEEPEST:
            raise NotJson(f"nested more than {DEEPEST} levels deep")


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
