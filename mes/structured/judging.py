"""Judging: the verdict on an answer, and how it breaks its schema."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import jsonschema_rs

from mes.domain import Judgement, Violation
from mes.strictjson import NotJson
from mes.structured.effort import TooMuch, effort
from mes.structured.extraction import extract
from mes.structured.outline import Place
from mes.structured.refusals import short
from mes.structured.wording import in_words

_MOST_ERRORS = 20
# In steps of `effort`: some 20 ms each. A real answer takes a few hundred.
_MOST_TO_JUDGE = 400_000
_MOST_TO_LIST = 5_000

TOO_LARGE = "too large or deep to be judged by the schema"


@dataclass(frozen=True)
class Judge:
    """Judges answers by one schema, in time that does not grow faster than they do."""

    validator: jsonschema_rs.Validator
    root: Place
    unrolled: float

    def judge(self, text: str, finish_reason: str) -> Judgement:
        """The verdict: valid, not_json, schema_violation, truncated or empty.

        The whole schema is asserted, `format` included, whatever the runtime has enforced.
        """
        if not text.strip() and finish_reason != "length":
            return _without_value("empty", "the model answered nothing")
        judgement = self._judge_whole(text)
        if finish_reason == "length" and not (judgement.valid and _is_closed(judgement.parsed)):
            cut = Violation("", "", "the answer was cut off at max_tokens")
            return Judgement("truncated", errors=(cut, *judgement.errors)[:_MOST_ERRORS])
        return judgement

    def _judge_whole(self, text: str) -> Judgement:
        try:
            value, how = extract(text)
        except NotJson as exc:
            return _without_value("not_json", str(exc))
        try:
            judgement = self.judge_value(value, characters=len(text))
        except TooMuch:
            return _without_value("schema_violation", TOO_LARGE)
        return replace(judgement, extraction=how)

    def judge_value(self, value: Any, *, characters: int) -> Judgement:
        """Return the verdict on a parsed value: valid or schema_violation.

        Args:
            characters: the length of the value's JSON text.

        Raises:
            TooMuch: judging would take longer than some 20 ms.
        """
        # A value has fewer parts than its text has characters, so most need no counting.
        if self.unrolled * characters > _MOST_TO_JUDGE:
            effort(self.root, value, most=_MOST_TO_JUDGE)
        if self.validator.is_valid(value):
            return Judgement("valid", value)
        return Judgement("schema_violation", errors=self._violations(value))

    def _violations(self, value: Any) -> tuple[Violation, ...]:
        if self._exceeds(value, _MOST_TO_LIST):
            return (Violation("", "", "breaks the schema in too many ways to list"),)
        errors = islice(self.validator.iter_errors(value), _MOST_ERRORS)
        return tuple(map(in_words, errors))

    def _exceeds(self, value: Any, most: int) -> bool:
        try:
            effort(self.root, value, most=most)
        except TooMuch:
            return True
        return False


def _without_value(verdict: str, detail: str) -> Judgement:
    return Judgement(verdict, errors=(Violation("", "", short(detail)),))


def _is_closed(value: Any) -> bool:
    # A number that ends where the tokens ended may have had more digits to come.
    return isinstance(value, str | dict | list | bool | None)
