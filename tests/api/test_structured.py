"""Structured output through the service: modes, asking again, what is told of it."""

from __future__ import annotations

import pytest

from mes import __version__, errors
from tests.api.conftest import KEY

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "number", "minimum": 0}},
    "required": ["name", "age"],
}
GOOD = '{"name": "John", "age": 25}'
BAD = '{"name": "John", "age": -1}'


@pytest.fixture
def say(runtime):
    """Let the runtime answer with these, one after the other."""

    def script(*answers):
        left = list(answers)
        runtime.answers = lambda prompt: left.pop(0)

    return script


def test_a_wrong_answer_is_asked_again_and_both_verdicts_are_told(ask, say, runtime):
    say(BAD, GOOD)
    answer = ask(json_schema=PERSON, seed=7, temperature=0).get_json()
    assert answer["success"] is True
    assert answer["parsed"] == {"name": "John", "age": 25}
    told = answer["structured"]
    assert (told["verdict"], told["first_verdict"], told["attempts"]) == (
        "valid",
        "schema_violation",
        2,
    )
    first, second = told["attempt_details"]
    assert (first["output"], first["verdict"], first["seed"]) == (BAD, "schema_violation", 7)
    assert (second["output"], second["verdict"], second["seed"]) == (GOOD, "valid", 8)
    assert answer["provenance"]["seed"] == answer["provenance"]["options"]["seed"] == 8
    assert answer["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    assert first["usage"]["total_tokens"] == 15
    assert answer["timings"]["generation_ms"] == 2 * first["timings"]["generation_ms"]


def test_the_model_is_told_briefly_what_was_wrong(ask, say, runtime):
    say(BAD, GOOD)
    ask(json_schema=PERSON, prompt="Who?")
    asked = runtime.prompts[1].text
    assert asked.startswith("Who?")
    assert BAD in asked
    assert "- /age: the value is less than the minimum of 0" in asked


def test_a_caller_may_have_one_attempt_only(ask, say, runtime):
    say(BAD)
    answer = ask(json_schema=PERSON, max_attempts=1).get_json()
    assert answer["success"] is False
    assert (answer["code"], answer["output"]) == ("schema_violation", BAD)
    assert answer["error"] == "/age: the value is less than the minimum of 0"
    assert answer["structured"]["attempts"] == 1


def test_the_catalog_says_how_many_attempts_a_model_has(ask, say, runtime):
    say(BAD, BAD, BAD)
    assert (
        ask(model_id="org/prose:q4", json_schema=PERSON).get_json()["structured"]["attempts"] == 3
    )


def test_a_repeated_violation_ends_the_grammar(ask, say, runtime):
    say(BAD, BAD, GOOD)
    answer = ask(json_schema=PERSON, max_attempts=4).get_json()
    modes = [each["mode"] for each in answer["structured"]["attempt_details"]]
    assert modes == ["grammar", "grammar", "json"]
    assert [prompt.format for prompt in runtime.prompts] == [PERSON, PERSON, "json"]
    assert "JSON Schema" in runtime.prompts[2].text


def test_a_truncated_answer_is_asked_again_only_where_the_budget_is_ours(ask, runtime):
    runtime.answers, runtime.finish_reason = lambda prompt: '{"name": "Jo', "length"
    answer = ask(json_schema=PERSON).get_json()
    assert [p.options["num_predict"] for p in runtime.prompts] == [77, 154]
    assert answer["code"] == answer["structured"]["verdict"] == "truncated"
    assert ask(json_schema=PERSON, max_tokens=50).get_json()["structured"]["attempts"] == 1


def test_what_befalls_a_later_attempt_does_not_take_the_answer_away(ask, say):
    say(BAD, errors.GenerationTimeout("not done in time"))
    response = ask(json_schema=PERSON)
    answer = response.get_json()
    assert response.status_code == 200
    assert (answer["code"], answer["output"]) == ("schema_violation", BAD)
    second = answer["structured"]["attempt_details"][1]
    assert (second["verdict"], second["errors"][0]["detail"]) == ("aborted", "not done in time")
    assert "output" not in second
    assert answer["structured"]["verdict"] == "schema_violation"


def test_a_caller_that_has_gone_is_not_asked_for_again(ask, say):
    say(BAD, errors.ClientDisconnected("gone"))
    assert ask(json_schema=PERSON).status_code == 499


def test_without_constraint_no_format_is_sent_and_that_is_told(ask, say, runtime):
    say(GOOD)
    answer = ask(json_schema=PERSON, constrain=False).get_json()
    assert runtime.prompts[0].format is None
    assert answer["structured"]["mode"] == "prompt"
    assert answer["structured"]["enforced"] == []
    assert answer["structured"]["ignored"] == ["minimum", "properties", "required", "type"]


def test_what_the_runtime_enforces_is_told(ask, say):
    say(GOOD)
    told = ask(json_schema=PERSON).get_json()["structured"]
    assert told["mode"] == "grammar"
    assert told["enforced"] == ["properties", "required", "type"]
    assert told["ignored"] == ["minimum"]
    assert told["extraction"] == "whole"


def test_a_schema_that_would_harm_the_runtime_is_told_and_never_sent(ask, say, runtime):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}},
    }
    say("{}")
    answer = ask(json_schema=schema).get_json()
    assert runtime.prompts[0].format == "json"
    assert (answer["structured"]["mode"], answer["parsed"]) == ("json", {})


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "object"}, "{}", {}),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"type": "integer"}, "42", 42),
        ({"enum": ["yes", "no"]}, '"yes"', "yes"),
        ({}, "null", None),
    ],
)
def test_any_kind_of_value_can_be_asked_for(ask, say, schema, text, value):
    say(text)
    answer = ask(json_schema=schema).get_json()
    assert (answer["success"], answer["parsed"], answer["output"]) == (True, value, text)


def test_at_most_20_violations_are_told_each_in_a_line(ask, say):
    say(str([-1] * 500))
    answer = ask(json_schema={"type": "array", "items": {"minimum": 0}}, max_attempts=1).get_json()
    violations = answer["structured"]["errors"]
    assert len(violations) == 20
    assert violations[3] == {
        "pointer": "/3",
        "keyword": "minimum",
        "detail": "the value is less than the minimum of 0",
    }


def test_of_alternatives_the_nearest_is_told(ask, say):
    say('{"kind": "b", "size": "large"}')
    alternatives = [
        {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
        {"properties": {"kind": {"const": "b"}, "size": {"type": "integer"}}},
    ]
    answer = ask(json_schema={"anyOf": alternatives}, max_attempts=1).get_json()
    assert answer["structured"]["errors"][0]["keyword"] == "anyOf"
    assert 'at /size the value is not of type "integer"' in answer["error"]


def test_a_run_can_be_repeated_from_what_is_told(ask, say):
    say(GOOD, GOOD)
    told = ask(json_schema=PERSON).get_json()["provenance"]
    assert told["mes_version"] == __version__
    assert told["schema_sha256"]
    again = ask(json_schema=PERSON, seed=told["seed"]).get_json()["provenance"]
    assert again == told


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"max_attempts": 0}, "/max_attempts"),
        ({"max_attempts": 5}, "/max_attempts"),
        ({"constrain": "yes"}, "/constrain"),
    ],
)
def test_how_to_ask_is_checked(ask, fields, pointer):
    problem = ask(json_schema=PERSON, **fields).get_json()
    assert [mistake["pointer"] for mistake in problem["errors"]] == [pointer]


@pytest.fixture
def check(client):
    def post(**body):
        return client.post("/v1/schemas/check", json=body, headers={"X-API-Key": KEY})

    return post


def test_a_schema_can_be_checked_without_a_generation(check, runtime):
    report = check(json_schema=PERSON).get_json()
    assert report["success"] is True
    assert report["dialect"] == "https://json-schema.org/draft/2020-12/schema"
    assert report["modes"] == ["grammar", "json", "prompt"]
    assert report["ignored"] == ["minimum"]
    assert report["findings"] == [
        {
            "pointer": "/properties/age",
            "keyword": "minimum",
            "effect": "ignored",
            "reason": "is enforced only for an integer",
        }
    ]
    assert runtime.prompts == []


def test_the_check_tells_what_holds_for_a_model(check):
    report = check(json_schema=PERSON, model_id="org/prose:q4").get_json()
    assert (report["modes"], report["enforced"]) == (["prompt"], [])


def test_the_check_refuses_what_inference_would_refuse(check, ask):
    schema = {"type": "object", "properties": {"a": {"$ref": "http://example.com/a"}}}
    refused, also = check(json_schema=schema), ask(json_schema=schema)
    assert refused.status_code == also.status_code == 422
    assert refused.get_json()["code"] == also.get_json()["code"] == "schema_unsafe"
    assert refused.get_json()["errors"] == also.get_json()["errors"]
    assert refused.get_json()["errors"][0]["pointer"] == "/json_schema/properties/a/$ref"
