"""Prompts that are too long because of the schema that MES has added to them."""

from __future__ import annotations

import json

import pytest

from mes import errors
from tests.api.conftest import KEY
from tests.api.test_structured import PERSON


def too_long(pointer):
    detail = "the prompt is too long: it has 900 tokens"
    return errors.PromptTooLong(detail, mistakes=(errors.Mistake(pointer, detail),))


LARGE = {**PERSON, "description": "long " * 100}


def test_an_overlong_prompt_names_the_schema_that_mes_has_added_to_it(ask, answer_with):
    answer_with(too_long("/prompt"))
    problem = ask(json_schema=LARGE, constrain=False, prompt="Hello").get_json()
    added = len(json.dumps(LARGE, separators=(",", ":"))) + len(
        "\n\nAnswer only with JSON that satisfies this JSON Schema:\n"
    )
    assert problem["code"] == "prompt_too_long"
    expected = f"it has 900 tokens; {added} of its {added + 5} characters are the schema"
    assert expected in problem["detail"]
    assert [each["pointer"] for each in problem["errors"]] == ["/json_schema"]


def test_an_overlong_prompt_stays_the_mistake_if_it_is_longer_than_the_schema(ask, answer_with):
    answer_with(too_long("/prompt"))
    problem = ask(json_schema=PERSON, constrain=False, prompt="word " * 1000).get_json()
    assert "characters are the schema" in problem["detail"]
    assert [each["pointer"] for each in problem["errors"]] == ["/prompt"]


@pytest.mark.parametrize("fields", [{}, {"json_schema": PERSON}])
def test_an_overlong_prompt_without_an_added_part_is_reported_as_it_is(ask, answer_with, fields):
    answer_with(too_long("/prompt"))
    problem = ask(**fields).get_json()
    assert problem["detail"] == "the prompt is too long: it has 900 tokens"


def test_the_openai_endpoint_names_the_schema_as_the_client_wrote_it(client, answer_with):
    answer_with(too_long("/messages"))
    body = {
        "model": "smollm2:135m",
        "messages": [{"role": "user", "content": "Hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": LARGE}},
        "mes": {"constrain": False},
    }
    answer = client.post("/v1/chat/completions", json=body, headers={"X-API-Key": KEY})
    error = answer.get_json()["error"]
    pointer = "response_format.json_schema.schema"
    assert (error["code"], error["param"]) == ("context_length_exceeded", pointer)
