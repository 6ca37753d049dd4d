"""Judging: the verdict on an answer, and how it breaks its schema."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs

from mes.domain import ValidationResult, Violation
from mes.strict_json import NotJson
from mes.structured.effort import TooMuch, effort
from mes.structured.extraction import extract
from mes.structured.outline import Place
from mes.structured.refusals import short
from mes.structured.wording import in_words

_MOST_ERRORS = 20
# In steps of `effort`: some 20 ms each. A real answer takes a few hundred.
_MOST_TO_JUDGE = 400_000
_MOST_TO_LIST = 5_000


@dataclass(frozen=True)
class Judge:
    """Judges answers by one schema, in time that does not grow faster than they do."""

    validator: jsonschema_rs.Validator
    root: Place
    unrolled: float

    def judge(self, text: str, finish_reason: str) -> ValidationResult:
        """The verdict: valid, not_json, schema_violation, truncated or empty.

        The whole schema is asserted, `format` included, whatever the runtime has enforced.
        """
        if not text.strip() and finish_reason != "length":
            return _without_value("empty", "the model answered nothing")
        validation = self._judge_whole(text)
        if finish_reason == "length" and not (validation.valid and _is_closed(validation.parsed)):
            cut = Violation("", "", "the answer was cut off at max_tokens")
            return ValidationResult("truncated", errors=(cut, *validation.errors)[:_MOST_ERRORS])
        return validation

    def _judge_whole(self, text: str) -> ValidationResult:
        try:
            value, how = extract(text)
        except NotJson as exc:
            return _without_value("not_json", str(exc))
        # A value has fewer parts than its text has characters, so most need no counting.
        if self.unrolled * len(text) > _MOST_TO_JUDGE and self._exceeds(value, _MOST_TO_JUDGE):
            return _without_value(
                "schema_violation", "too large or deep to be judged by the schema"
            )
        if self.validator.is_valid(value):
            return ValidationResult("valid", value, extraction=how)
        return ValidationResult("schema_violation", errors=self._violations(value), extraction=how)

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


def _without_value(verdict: str, detail: str) -> ValidationResult:
    return ValidationResult(verdict, errors=(Violation("", "", short(detail)),))


def _is_closed(value: Any) -> bool:
    # A number that ends where the tokens ended may have had more digits to come.
    return isinstance(value, str | dict | list | bool | None)
