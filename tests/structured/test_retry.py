"""Retries: the conditions under which a model is asked again, and the changes of each attempt."""

from __future__ import annotations

from typing import Any

from mes.domain import Attempt, Reply, Usage, ValidationResult, Violation
from mes.structured.retry import RetryPlan, next_step

ALL = ("grammar", "json", "prompt")
OPTIONS = {"seed": 7, "temperature": 0.0, "num_predict": 100}


def attempt(
    verdict: str = "schema_violation",
    mode: str = "grammar",
    pointer: str = "/a",
    keyword: str = "minimum",
    **fields: Any,
) -> Attempt:
    reply = Reply("x", "stop", Usage(1, 1), 1, 1, 1)
    errors = () if verdict == "valid" else (Violation(pointer, keyword, "wrong"),)
    defaults = {"options": OPTIONS, "reply": reply, "seconds": 1.0, **fields}
    return Attempt(mode=mode, validation=ValidationResult(verdict, errors=errors), **defaults)


def step(
    *attempts: Attempt,
    modes: tuple[str, ...] = ALL,
    most: int = 4,
    may_raise_max_tokens: bool = True,
    left: float = 60,
) -> Any:
    return next_step(attempts, RetryPlan(modes, most, may_raise_max_tokens), seconds_left=left)


def test_a_valid_answer_is_not_retried():
    assert step(attempt("valid")) is None


def test_an_invalid_answer_is_retried_with_feedback():
    invalid = attempt()
    retry = step(invalid)
    assert (retry.mode, retry.feedback_on) == ("grammar", invalid)


def test_a_retry_varies_the_seed_and_raises_a_low_temperature():
    assert step(attempt()).options == {"seed": 8, "temperature": 0.3, "num_predict": 100}
    high = attempt(options={**OPTIONS, "temperature": 0.9, "seed": 2**31 - 1})
    assert step(high).options == {"seed": 0, "temperature": 0.9, "num_predict": 100}


def test_no_more_attempts_are_made_than_were_asked_for():
    assert step(attempt(), most=1) is None
    assert step(attempt(), attempt(), most=2) is None
    assert step(attempt(), attempt(), most=3) is not None


def test_no_attempt_starts_that_would_not_end_in_time():
    assert step(attempt(seconds=10), left=11) is None
    assert step(attempt(seconds=10), left=13) is not None
    assert step(attempt(seconds=0.01), left=0.9) is None


def test_a_violation_that_repeats_under_the_grammar_changes_the_mode():
    assert step(attempt(pointer="/rows/3/a"), attempt(pointer="/rows/17/a")).mode == "json"


def test_another_violation_keeps_the_mode():
    assert step(attempt(), attempt(keyword="maximum")).mode == "grammar"
    assert step(attempt(pointer="/b"), attempt()).mode == "grammar"


def test_an_answer_without_the_reasoning_that_was_asked_for_changes_the_mode():
    plan = RetryPlan(ALL, 4, may_raise_max_tokens=True, thinks=True)
    reasoned = attempt(reply=Reply("x", "stop", Usage(1, 1), 1, 1, 1, reasoning="Well."))
    assert next_step([attempt()], plan, seconds_left=60).mode == "json"
    assert next_step([reasoned], plan, seconds_left=60).mode == "grammar"
    assert step(attempt()).mode == "grammar"


def test_an_empty_answer_without_reasoning_is_asked_for_without_a_grammar():
    assert step(attempt("empty")).mode == "prompt"
    reasoned = Reply("", "stop", Usage(1, 1), 1, 1, 1, reasoning="Well.")
    assert step(attempt("empty", reply=reasoned)).mode == "grammar"


def test_the_next_mode_is_one_that_suits_the_schema():
    assert step(attempt(), attempt(), modes=("grammar", "prompt")).mode == "prompt"


def test_without_a_grammar_a_repeated_violation_changes_nothing():
    assert step(attempt(mode="json"), attempt(mode="json")).mode == "json"


def test_a_truncated_answer_is_retried_with_twice_the_tokens():
    retry = step(attempt("truncated"))
    assert retry.options == {"seed": 8, "temperature": 0.3, "num_predict": 200}
    assert retry.feedback_on is None


def test_a_truncated_answer_is_not_retried_if_the_client_set_max_tokens():
    assert step(attempt("truncated"), may_raise_max_tokens=False) is None


def test_an_aborted_attempt_is_not_retried():
    assert step(attempt(), attempt("aborted", reply=None)) is None
