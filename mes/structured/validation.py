"""Validation: the verdict on a model's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jsonschema_rs

from mes.domain import ValidationResult, Violation
from mes.strict_json import NotJson
from mes.structured.backtracking import BacktrackingPatterns, Undecided
from mes.structured.cost import CostExceeded, Matching, validation_cost
from mes.structured.extraction import extract, fits_type
from mes.structured.messages import describe_violation, shorten
from mes.structured.schema_tree import SchemaNode

_MOST_ERRORS = 20
# In steps of `validation_cost`, about 20 ms each. A real answer takes a few hundred steps.
_MOST_STEPS_TO_VALIDATE = 400_000
_MOST_STEPS_TO_LIST_ERRORS = 5_000

TOO_LARGE = "too large or too deeply nested to be validated against the schema"


@dataclass(frozen=True)
class Validator:
    """Validates answers against one schema, in time linear in the length of the answer.

    `root` is the root of the schema's tree, `unrolled_size` its size without references,
    `backtracking` the patterns that take more than linear time.
    """

    compiled: jsonschema_rs.Validator
    root: SchemaNode
    unrolled_size: float
    backtracking: BacktrackingPatterns | None = None

    def validate_answer(self, text: str, finish_reason: str) -> ValidationResult:
        """Return the verdict: valid, not_json, schema_violation, undecided, truncated or empty.

        The whole schema is asserted, `format` included, even if the runtime enforced a part of it.
        """
        if not text.strip() and finish_reason != "length":
            return _without_value("empty", "the model returned an empty answer")
        result = self._validate_text(text)
        if finish_reason == "length" and not (result.valid and _is_complete(result.parsed)):
            cut = Violation("", "", "the answer was cut off at max_tokens")
            return ValidationResult("truncated", errors=(cut, *result.errors)[:_MOST_ERRORS])
        return result

    def _validate_text(self, text: str) -> ValidationResult:
        try:
            value, source = extract(text, partial(fits_type, self.root))
        except NotJson as exc:
            return _without_value("not_json", str(exc))
        try:
            result = self.validate_value(value, characters=len(text))
        except CostExceeded:
            return _without_value("schema_violation", TOO_LARGE)
        except Undecided as exc:
            return _without_value("undecided", str(exc), keyword="pattern")
        return replace(result, extraction=source)

    def validate_value(self, value: Any, *, characters: int) -> ValidationResult:
        """Return the verdict on a parsed value: valid or schema_violation.

        Args:
            characters: the length of the text from which the value was parsed.

        Raises:
            CostExceeded: validation would take longer than about 20 ms.
            Undecided: a pattern cannot be matched within its limits.
        """
        # A value has fewer parts than its text has characters, so most need no counting.
        if self.unrolled_size * characters > _MOST_STEPS_TO_VALIDATE:
            validation_cost(self.root, value, most=_MOST_STEPS_TO_VALIDATE)
        if self.backtracking is not None:
            self._check_matching_cost(value, self.backtracking.matching_cost)
        if self.compiled.is_valid(value):
            return ValidationResult("valid", value)
        return ValidationResult("schema_violation", errors=self._violations(value))

    def _check_matching_cost(self, value: Any, matching: Matching) -> None:
        # A pattern at its limit counts as a mismatch, which under `not` would be a match.
        try:
            validation_cost(self.root, value, most=_MOST_STEPS_TO_VALIDATE, matching=matching)
        except CostExceeded as exc:
            raise Undecided("look-around and back-references in patterns take too long") from exc

    def _violations(self, value: Any) -> tuple[Violation, ...]:
        try:
            validation_cost(self.root, value, most=_MOST_STEPS_TO_LIST_ERRORS)
        except CostExceeded:
            return (Violation("", "", "violates the schema in too many ways to list"),)
        errors = islice(self.compiled.iter_errors(value), _MOST_ERRORS)
        return tuple(map(describe_violation, errors))


def _without_value(verdict: str, detail: str, *, keyword: str = "") -> ValidationResult:
    return ValidationResult(verdict, errors=(Violation("", keyword, shorten(detail)),))


def _is_complete(value: Any) -> bool:
    # A number at the end of a truncated answer may lack digits.
    return isinstance(value, str | dict | list | bool | None)
