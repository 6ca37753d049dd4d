"""Judging: the verdict on an answer, and how it breaks its schema."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jsonschema_rs

from mes.domain import Judgement, Violation
from mes.strictjson import NotJson
from mes.structured.effort import TooMuch, refuse_effort
from mes.structured.extraction import extract
from mes.structured.outline import Place
from mes.structured.refusals import short
from mes.structured.wording import in_words

_MOST_ERRORS = 20
# Of about 5 us each; a broken answer to a real schema takes a few hundred.
_MOST_STEPS = 5_000


def judge(
    text: str, finish_reason: str, *, validator: jsonschema_rs.Validator, root: Place
) -> Judgement:
    """The verdict: valid, not_json, schema_violation, truncated or empty.

    The whole schema is asserted, `format` included, whatever the runtime has enforced.
    """
    if not text.strip() and finish_reason != "length":
        return _without_value("empty", "the model answered nothing")
    judgement = _judge_whole(text, validator, root)
    if finish_reason == "length" and not (judgement.valid and _is_closed(judgement.parsed)):
        cut = Violation("", "", "the answer was cut off at max_tokens")
        return Judgement("truncated", errors=(cut, *judgement.errors)[:_MOST_ERRORS])
    return judgement


def _judge_whole(text: str, validator: jsonschema_rs.Validator, root: Place) -> Judgement:
    try:
        found = extract(text)
    except NotJson as exc:
        return _without_value("not_json", str(exc))
    if validator.is_valid(found.value):
        return Judgement("valid", found.value, extraction=found.how)
    errors = tuple(_violations(found.value, validator, root))
    return Judgement("schema_violation", errors=errors, extraction=found.how)


def _violations(value: Any, validator: jsonschema_rs.Validator, root: Place) -> Iterator[Violation]:
    try:
        refuse_effort(root, value, _MOST_STEPS)
    except TooMuch:
        yield Violation("", "", "the value breaks the schema in too many ways to list")
        return
    for error in islice(validator.iter_errors(value), _MOST_ERRORS):
        yield in_words(error)


def _without_value(verdict: str, detail: str) -> Judgement:
    return Judgement(verdict, errors=(Violation("", "", short(detail)),))


def _is_closed(value: Any) -> bool:
    # A number that ends where the tokens ended may have had more digits to come.
    return isinstance(value, str | dict | list | bool | None)
