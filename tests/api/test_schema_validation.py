"""`POST /v1/schemas/validate`: instances judged by two validators, their disagreements named."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from mes.structured import SecondValidator
from tests.api.conftest import KEY
from tests.support.dataset import Case, cases

PATH = "/v1/schemas/validate"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
    "required": ["name", "age"],
}


@pytest.fixture
def validate(client):
    def post(schema: Any = PERSON, instances: Any = ()) -> Any:
        body = {"json_schema": schema, "instances": instances}
        return client.post(PATH, json=body, headers={"X-API-Key": KEY})

    return post


@pytest.fixture
def use(app):
    """Replace the second validator of the application."""

    def use(second: SecondValidator) -> None:
        own = app.extensions["mes"]
        app.extensions["mes"] = replace(own, second_validator=second)

    return use


def test_each_instance_has_the_verdicts_of_both(validate, runtime):
    answer = validate(PERSON, [{"name": "x", "age": 1}, {"name": "x", "age": "1"}]).get_json()
    assert answer["totals"] == {
        "instances": 2,
        "valid": 1,
        "invalid": 1,
        "disagreements": 0,
        "undecided": 0,
    }
    good, bad = answer["results"]
    valid = {"verdict": "valid", "errors": [], "reason": None}
    assert good == {"index": 0, "agree": True, "mes": valid, "jsonschema": valid}
    assert (bad["index"], bad["agree"], bad["mes"]["verdict"]) == (1, True, "invalid")
    assert bad["mes"]["errors"] == [
        {"pointer": "/age", "keyword": "type", "detail": 'the value is not of type "number"'}
    ]
    assert bad["jsonschema"]["errors"] == [
        {"pointer": "/age", "keyword": "type", "detail": "the value is not of type 'number'"}
    ]
    assert runtime.prompts == []


def test_the_answer_says_which_libraries_judged_and_by_which_schema(validate, client):
    answer = validate(PERSON, [1]).get_json()
    assert answer["validators"]["mes"].startswith("jsonschema-rs 0.")
    assert answer["validators"]["jsonschema"].startswith("jsonschema 4.")
    checked = client.post(
        "/v1/schemas/check", json={"json_schema": PERSON}, headers={"X-API-Key": KEY}
    ).get_json()
    for name in ("dialect", "schema_sha256"):
        assert answer[name] == checked[name]


def test_disagreements_are_listed_by_index(validate):
    answer = validate({"multipleOf": 0.01}, [1, 4.02, 0.001]).get_json()
    assert answer["disagreements"] == [1]
    assert answer["totals"]["disagreements"] == 1
    result = answer["results"][1]
    assert (result["agree"], result["mes"]["verdict"]) == (False, "valid")
    assert result["jsonschema"]["errors"][0]["keyword"] == "multipleOf"


def test_a_pattern_that_hangs_costs_only_the_instance_that_it_hangs_on(validate):
    answer = validate({"pattern": "^(a+)+$"}, ["aa", "a" * 60 + "!", "b"]).get_json()
    assert [each["agree"] for each in answer["results"]] == [True, None, True]
    undecided = answer["results"][1]["jsonschema"]
    assert (undecided["verdict"], undecided["errors"]) == ("undecided", [])
    assert undecided["reason"] == "takes longer than 1 s of CPU time"
    assert answer["totals"]["undecided"] == 1
    assert answer["disagreements"] == []


def test_a_process_that_dies_makes_instances_undecided_and_never_valid(validate, use):
    use(SecondValidator(program=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]))
    answer = validate({}, [1, 2])
    assert answer.status_code == 200
    assert answer.get_json()["totals"]["undecided"] == 2
    assert answer.get_json()["totals"]["valid"] == 0


@pytest.mark.parametrize("value", [None, True, 0, -0.0, 10**40, "", "\u2603", [], {}, [[{"": []}]]])
def test_any_json_value_is_an_instance(validate, value):
    (result,) = validate({"const": value}, [value]).get_json()["results"]
    assert (result["mes"]["verdict"], result["jsonschema"]["verdict"]) == ("valid", "valid")


def test_as_many_instances_as_promised_are_judged(validate):
    answer = validate({"maximum": 500}, list(range(1_000))).get_json()
    assert (answer["totals"]["valid"], answer["totals"]["invalid"]) == (501, 499)


@pytest.mark.parametrize(
    ("instances", "detail"),
    [
        ([], "must not be empty"),
        ([1] * 1_001, "must have at most 1000 elements; this list has 1001"),
    ],
)
def test_none_or_too_many_instances_are_refused_with_the_limit(validate, instances, detail):
    response = validate(PERSON, instances)
    assert response.status_code == 422
    mistake = {"pointer": "/instances", "detail": detail}
    assert response.get_json()["errors"] == [mistake]


@pytest.mark.parametrize("instances", [None, {"a": 1}, "a"])
def test_instances_are_a_list(validate, instances):
    response = validate(PERSON, instances)
    assert response.status_code == 422
    assert [each["pointer"] for each in response.get_json()["errors"]] == ["/instances"]


@pytest.mark.parametrize(
    "schema", [{"type": "no-such-type"}, {"$ref": "http://example.com/a"}, {"pattern": "("}]
)
def test_a_schema_is_refused_as_the_check_refuses_it(validate, client, schema):
    checked = client.post(
        "/v1/schemas/check", json={"json_schema": schema}, headers={"X-API-Key": KEY}
    )
    refused = validate(schema, [1])
    assert refused.status_code == checked.status_code == 422
    for name in ("code", "detail", "errors"):
        assert refused.get_json()[name] == checked.get_json()[name]


def test_more_than_the_largest_body_is_refused_as_everywhere(validate):
    response = validate(PERSON, ["x" * 30_000])
    assert (response.status_code, response.get_json()["code"]) == (413, "content_too_large")


def test_without_a_key_nothing_is_judged(client):
    response = client.post(PATH, json={"json_schema": {}, "instances": [1]})
    assert (response.status_code, response.get_json()["code"]) == (401, "unauthorized")


def test_while_too_many_are_judged_others_are_asked_to_come_again(validate, use):
    use(SecondValidator(processes=0, waiting=0))
    response = validate(PERSON, [1])
    assert (response.status_code, response.get_json()["code"]) == (503, "queue_full")
    assert int(response.headers["Retry-After"]) >= 1


# The tests' own MAX_BODY_BYTES is small.
SMALL_CASES = [case for case in cases() if len(str(case)) < 15_000]


@pytest.mark.skipif(not cases(), reason="JSONSchemaBench is not at hand")
@pytest.mark.parametrize("case", SMALL_CASES[::30], ids=lambda case: case.name)
def test_both_agree_on_real_instances(validate, case: Case):
    answer = validate(case.schema, [each.value for each in case.instances]).get_json()
    assert answer["disagreements"] == []
    assert answer["totals"]["undecided"] == 0
