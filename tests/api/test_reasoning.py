"""Reasoning and a schema: JSON in the reasoning is never the answer."""

from __future__ import annotations

import pytest

from tests.api.test_structured import GOOD, PERSON


@pytest.mark.parametrize("think", [True, False])
def test_json_in_reasoning_that_was_cut_off_is_no_answer(ask, answer_with, runtime, think):
    answer_with(f"Let me try {GOOD} first, but")
    runtime.finish_reason = "length"
    answer = ask(json_schema=PERSON, think=think, max_attempts=1).get_json()
    assert answer["structured"]["verdict"] == ("truncated" if think else "valid")
    assert answer["output"] == f"Let me try {GOOD} first, but"


def test_json_that_is_the_whole_text_is_the_answer_of_a_model_that_does_not_reason(
    ask, answer_with, runtime
):
    answer_with(GOOD)
    runtime.finish_reason = "length"
    answer = ask(json_schema=PERSON, think=True, max_attempts=1).get_json()
    assert answer["structured"]["verdict"] == "valid"


def test_json_in_the_reasoning_is_never_the_answer(ask, answer_with, runtime):
    runtime.reasoning = GOOD
    answer_with("")
    answer = ask(json_schema=PERSON, think=True, max_attempts=1).get_json()
    assert (answer["success"], answer["code"], answer["parsed"]) == (False, "empty", None)
    assert answer["reasoning"] == GOOD


@pytest.mark.parametrize("reasoning", ["", "Well."])
def test_keywords_count_as_enforced_only_after_reasoning(ask, answer_with, runtime, reasoning):
    runtime.reasoning = reasoning
    answer_with(GOOD)
    report = ask(json_schema=PERSON, think=True).get_json()["structured"]
    assert ("required" in report["enforced"]) is bool(reasoning)
    assert ("required" in report["ignored"]) is not bool(reasoning)
