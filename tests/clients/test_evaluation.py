"""Evaluation harnesses, unchanged: with the model of `make run`, or a runtime with tool calls."""

from __future__ import annotations

import json

import pytest

WITH_TOOLS = "llama3.1:8b"


def test_lm_eval_sends_an_empty_list_of_stops_to_the_chat_endpoint(served, run_client):
    assert_capitals(run_client("evaluation", "lm_eval_chat.py", served))


def test_lm_eval_sends_token_ids_or_several_texts_to_the_completions_endpoint(served, run_client):
    done = run_client("evaluation", "lm_eval_completions.py", served)
    assert_capitals(done["token_ids"])
    assert_capitals(done["batches_of_texts"])


def assert_capitals(answers):
    assert "Paris" in answers["France"]
    assert "Rome" in answers["Italy"]


@pytest.fixture(scope="module")
def inspected(served, run_client):
    """Return the answers that Inspect received for each of its features."""
    return run_client("evaluation", "inspect_features.py", served)


def test_inspect_asks_for_a_text(inspected):
    assert "Paris" in inspected["text"][0]


def test_inspect_asks_for_structured_output(inspected):
    assert json.loads(inspected["structured"][0]) == {"name": "John Smith", "age": 25}


def test_inspect_lets_the_model_continue_an_answer(inspected):
    (continued,) = inspected["prefill"]
    assert "Paris" in continued
    assert not continued.startswith("The capital")


def test_inspect_asks_for_three_choices(inspected):
    assert len(inspected["choices"]) == 3
    assert all(inspected["choices"])


def test_inspect_evaluates_a_model_that_calls_a_function(service, fake_ollama, run_client):
    call = {"name": "add", "arguments": {"x": 2, "y": 3}}
    turns = [{"calls": [call]}, {"reply": "It is 5."}]
    fake_ollama.control(abilities={WITH_TOOLS: ["tools"]}, turns=turns)
    done = run_client("evaluation", "inspect_tools.py", service(models={WITH_TOOLS: {}}))
    assert done["messages"] == [
        {"role": "user", "text": "What is 2 + 3?"},
        {"role": "assistant", "text": ""},
        {"role": "tool", "text": "5"},
        {"role": "assistant", "text": "It is 5."},
    ]


@pytest.mark.clients
def test_evalplus_asks_for_three_samples_at_once(served, run_client):
    done = run_client("large", "evalplus_samples.py", served)
    assert len(done["samples"]) == 3
    assert all(sample.strip() for sample in done["samples"])


@pytest.mark.clients
def test_lighteval_sends_both_names_of_the_limit_of_tokens(served, run_client):
    done = run_client("large", "lighteval_litellm.py", served)
    assert "Paris" in done["answers"][0]


@pytest.mark.clients
def test_guidellm_measures_answers_of_a_fixed_number_of_tokens(served, run_client):
    done = run_client("large", "guidellm_run.py", served)
    measured = {"successful": 4, "errored": 0}
    assert done == {"/v1/chat/completions": measured, "/v1/completions": measured}
