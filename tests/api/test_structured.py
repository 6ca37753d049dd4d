"""Structured output through the service: modes, attempts and the report of them."""

from __future__ import annotations

import hashlib
import json

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


def test_an_invalid_answer_is_generated_again_and_both_verdicts_are_reported(
    ask, answer_with, runtime
):
    answer_with(BAD, GOOD)
    answer = ask(json_schema=PERSON, seed=7, temperature=0).get_json()
    assert answer["success"] is True
    assert answer["parsed"] == {"name": "John", "age": 25}
    report = answer["structured"]
    assert (report["verdict"], report["first_verdict"], report["attempts"]) == (
        "valid",
        "schema_violation",
        2,
    )
    first, second = report["attempt_details"]
    assert (first["output"], first["verdict"], first["seed"]) == (BAD, "schema_violation", 7)
    assert (second["output"], second["verdict"], second["seed"]) == (GOOD, "valid", 8)
    assert answer["provenance"]["seed"] == answer["provenance"]["options"]["seed"] == 8
    assert answer["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    assert first["usage"]["total_tokens"] == 15
    assert answer["timings"]["generation_ms"] == 2 * first["timings"]["generation_ms"]


DECIMAL = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}
REPEATING = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"(a+)\1b"}}}
TOO_MANY_STEPS = '{"a": "' + 1_000 * "a" + '"}'


@pytest.mark.parametrize(
    ("answer", "verdict"), [('"-1.50"', "valid"), ('"-."', "schema_violation")]
)
def test_a_pattern_with_look_around_is_judged(ask, answer_with, answer, verdict):
    answer_with(answer)
    assert ask(json_schema=DECIMAL, max_attempts=1).get_json()["structured"]["verdict"] == verdict


def test_a_pattern_that_takes_too_many_steps_leaves_the_answer_undecided(ask, answer_with):
    answer_with(TOO_MANY_STEPS, '{"a": "aab"}')
    answer = ask(json_schema=REPEATING).get_json()
    report = answer["structured"]
    assert (report["first_verdict"], report["verdict"]) == ("undecided", "valid")
    assert report["attempt_details"][0]["errors"] == [
        {
            "pointer": "",
            "keyword": "pattern",
            "detail": "the pattern at /properties/a/pattern takes more than 2000 steps",
        }
    ]


def test_an_undecided_answer_is_no_success(ask, answer_with):
    answer_with(TOO_MANY_STEPS)
    answer = ask(json_schema=REPEATING, max_attempts=1).get_json()
    assert (answer["success"], answer["code"], answer["parsed"]) == (False, "undecided", None)
    assert answer["output"] == TOO_MANY_STEPS


def test_the_violations_are_appended_to_the_prompt(ask, answer_with, runtime):
    answer_with(BAD, GOOD)
    ask(json_schema=PERSON, prompt="Who?")
    second = runtime.prompts[1].text
    assert second.startswith("Who?")
    assert BAD in second
    assert "- /age: the value is less than the minimum of 0" in second


def test_a_client_can_limit_the_attempts_to_one(ask, answer_with, runtime):
    answer_with(BAD)
    answer = ask(json_schema=PERSON, max_attempts=1).get_json()
    assert answer["success"] is False
    assert (answer["code"], answer["output"]) == ("schema_violation", BAD)
    assert answer["error"] == "/age: the value is less than the minimum of 0"
    assert answer["structured"]["attempts"] == 1


def test_the_catalog_sets_the_attempts_of_a_model(ask, answer_with, runtime):
    answer_with(BAD, BAD, BAD)
    assert (
        ask(model_id="org/prose:q4", json_schema=PERSON).get_json()["structured"]["attempts"] == 3
    )


def test_a_repeated_violation_ends_the_grammar(ask, answer_with, runtime):
    answer_with(BAD, BAD, GOOD)
    answer = ask(json_schema=PERSON, max_attempts=4).get_json()
    modes = [each["mode"] for each in answer["structured"]["attempt_details"]]
    assert modes == ["grammar", "grammar", "json"]
    assert [prompt.format for prompt in runtime.prompts] == [PERSON, PERSON, "json"]
    assert "JSON Schema" in runtime.prompts[2].text


def test_a_truncated_answer_is_generated_again_unless_the_client_set_max_tokens(ask, runtime):
    runtime.answers, runtime.finish_reason = lambda prompt: '{"name": "Jo', "length"
    answer = ask(json_schema=PERSON).get_json()
    assert [p.options["num_predict"] for p in runtime.prompts] == [77, 154]
    assert answer["code"] == answer["structured"]["verdict"] == "truncated"
    assert ask(json_schema=PERSON, max_tokens=50).get_json()["structured"]["attempts"] == 1


def test_an_error_of_a_later_attempt_keeps_the_earlier_answer(ask, answer_with):
    answer_with(BAD, errors.GenerationTimeout("not done in time"))
    response = ask(json_schema=PERSON)
    answer = response.get_json()
    assert response.status_code == 200
    assert (answer["code"], answer["output"]) == ("schema_violation", BAD)
    second = answer["structured"]["attempt_details"][1]
    assert (second["verdict"], second["errors"][0]["detail"]) == (
        "aborted",
        "the generation did not end within 600 s (DEFAULT_TIMEOUT) in attempt 2: no token was "
        "generated, of at most 77; raise it, or set timeout in the request, or lower max_tokens",
    )
    assert "output" not in second
    assert answer["structured"]["verdict"] == "schema_violation"


def test_no_further_attempt_is_made_for_a_disconnected_client(ask, answer_with):
    answer_with(BAD, errors.ClientDisconnected("gone"))
    assert ask(json_schema=PERSON).status_code == 499


def test_without_constrain_no_format_is_sent_and_the_mode_is_prompt(ask, answer_with, runtime):
    answer_with(GOOD)
    answer = ask(json_schema=PERSON, constrain=False).get_json()
    assert runtime.prompts[0].format is None
    assert answer["structured"]["mode"] == "prompt"
    assert answer["structured"]["enforced"] == []
    assert answer["structured"]["ignored"] == ["minimum", "properties", "required", "type"]


def test_enforced_keywords_are_reported(ask, answer_with):
    answer_with(GOOD)
    report = ask(json_schema=PERSON).get_json()["structured"]
    assert report["mode"] == "grammar"
    assert report["enforced"] == ["properties", "required", "type"]
    assert report["ignored"] == ["minimum"]
    assert report["extraction"] == "whole"


def test_a_schema_that_would_harm_the_runtime_is_not_sent_as_format(ask, answer_with, runtime):
    schema = {"type": "object", "properties": {"a": {"enum": []}}}
    answer_with("{}")
    answer = ask(json_schema=schema).get_json()
    assert runtime.prompts[0].format == "json"
    assert (answer["structured"]["mode"], answer["parsed"]) == ("json", {})


def test_the_runtime_gets_the_schema_without_the_keywords_that_it_refuses(
    ask, answer_with, runtime
):
    word = {"type": "string", "minLength": 2_500, "maxLength": 10_000}
    schema = {"type": "object", "properties": {"word": word}, "required": ["word"]}
    answer_with('{"word": "a"}')
    answer = ask(json_schema=schema, max_attempts=1).get_json()
    assert runtime.prompts[0].format == {
        **schema,
        "properties": {"word": {"type": "string", "maxLength": 10_000}},
    }
    assert (answer["code"], answer["structured"]["mode"]) == ("schema_violation", "grammar")
    assert "minLength" in answer["structured"]["ignored"]
    text = json.dumps(schema, separators=(",", ":"))
    assert answer["provenance"]["schema_sha256"] == hashlib.sha256(text.encode()).hexdigest()


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
def test_a_schema_may_require_any_kind_of_value(ask, answer_with, schema, text, value):
    answer_with(text)
    answer = ask(json_schema=schema).get_json()
    assert (answer["success"], answer["parsed"], answer["output"]) == (True, value, text)


def test_at_most_20_violations_are_reported(ask, answer_with):
    answer_with(str([-1] * 500))
    answer = ask(json_schema={"type": "array", "items": {"minimum": 0}}, max_attempts=1).get_json()
    violations = answer["structured"]["errors"]
    assert len(violations) == 20
    assert violations[3] == {
        "pointer": "/3",
        "keyword": "minimum",
        "detail": "the value is less than the minimum of 0",
    }


def test_the_violation_of_the_nearest_alternative_is_reported(ask, answer_with):
    answer_with('{"kind": "b", "size": "large"}')
    alternatives = [
        {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
        {"properties": {"kind": {"const": "b"}, "size": {"type": "integer"}}},
    ]
    answer = ask(json_schema={"anyOf": alternatives}, max_attempts=1).get_json()
    assert answer["structured"]["errors"][0]["keyword"] == "anyOf"
    assert 'at /size the value is not of type "integer"' in answer["error"]


def test_a_run_can_be_repeated_from_its_provenance(ask, answer_with):
    answer_with(GOOD, GOOD)
    report = ask(json_schema=PERSON).get_json()["provenance"]
    assert report["mes_version"] == __version__
    assert report["schema_sha256"]
    again = ask(json_schema=PERSON, seed=report["seed"]).get_json()["provenance"]
    assert again == report


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"max_attempts": 0}, "/max_attempts"),
        ({"max_attempts": 5}, "/max_attempts"),
        ({"constrain": "yes"}, "/constrain"),
    ],
)
def test_the_options_of_attempts_are_validated(ask, fields, pointer):
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


def test_the_check_reports_the_modes_of_a_model(check):
    report = check(json_schema=PERSON, model_id="org/prose:q4").get_json()
    assert (report["modes"], report["enforced"]) == (["prompt"], [])


def test_the_check_has_the_errors_of_an_inference(check, ask):
    schema = {"type": "object", "properties": {"a": {"$ref": "http://example.com/a"}}}
    refused, also = check(json_schema=schema), ask(json_schema=schema)
    assert refused.status_code == also.status_code == 422
    assert refused.get_json()["code"] == also.get_json()["code"] == "schema_unsafe"
    assert refused.get_json()["errors"] == also.get_json()["errors"]
    assert refused.get_json()["errors"][0]["pointer"] == "/json_schema/properties/a/$ref"
