"""Judging: the verdict on an answer, and how it breaks its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs

from mes.domain import ValidationResult, Violation
from mes.strict_json import NotJson, parse_json
from mes.structured.cost import CostExceeded, validation_cost
from mes.structured.messages import describe_violation, shorten
from mes.structured.schema_tree import SchemaNode

_MOST_ERRORS = 20
# In steps of `effort`: some 20 ms each. A real answer takes a few hundred.
_MOST_TO_JUDGE = 400_000
_MOST_TO_LIST = 5_000

TOO_LARGE = "too large or deep to be judged by the schema"


@dataclass(frozen=True)
class Validator:
    """Judges answers by one schema, in time that does not grow faster than they do."""

    validator: jsonschema_rs.Validator
    root: SchemaNode
    unrolled: float

    def validate_answer(self, text: str, finish_reason: str) -> ValidationResult:
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
        try:
            validation = self.judge_value(value, characters=len(text))
        except CostExceeded:
            return _without_value("schema_violation", TOO_LARGE)
        return replace(validation, extraction=how)

    def judge_value(self, value: Any, *, characters: int) -> ValidationResult:
        """Return the verdict on a parsed value: valid or schema_violation.

        Args:
            characters: the length of the value's JSON text.

        Raises:
            TooMuch: judging would take longer than some 20 ms.
        """
        # A value has fewer parts than its text has characters, so most need no counting.
        if self.unrolled * characters > _MOST_TO_JUDGE:
            validation_cost(self.root, value, most=_MOST_TO_JUDGE)
        if self.validator.is_valid(value):
            return ValidationResult("valid", value)
        return ValidationResult("schema_violation", errors=self._violations(value))

    def _violations(self, value: Any) -> tuple[Violation, ...]:
        if self._exceeds(value, _MOST_TO_LIST):
            return (Violation("", "", "breaks the schema in too many ways to list"),)
        errors = islice(self.validator.iter_errors(value), _MOST_ERRORS)
        return tuple(map(describe_violation, errors))

    def _exceeds(self, value: Any, most: int) -> bool:
        try:
            validation_cost(self.root, value, most=most)
        except CostExceeded:
            return True
        return False


def _without_value(verdict: str, detail: str) -> ValidationResult:
    return ValidationResult(verdict, errors=(Violation("", "", shorten(detail)),))


def _is_closed(value: Any) -> bool:
    # A number that ends where the tokens ended may have had more digits to come.
    return isinstance(value, str | dict | list | bool | None)


# Extraction: the one JSON value in a model's answer, wherever it stands.

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
