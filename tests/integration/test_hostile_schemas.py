"""Hostile schemas under gunicorn: whoever sends them is told off, and nobody else notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from mes import strict_json
from tests.integration.helpers import Answer, Call, asked, crowd, percentile, wait_until_at_rest
from tests.structured.hostile import CASES
from tests.structured.hostile.case import INVALID, UNSAFE, Case, Schema, nested

MODEL = "phi3:mini"
CLIENTS = 4
PAUSE_SECONDS = 0.1
SECONDS = 4.0
ROUNDS = 4
HARMLESS = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
# Each of its levels doubles the work of a judge that follows every branch of a schema.
DEEP_ANSWER = json.dumps(nested({"a": "x"}, 24, lambda inner: {"a": inner}))

pytestmark = pytest.mark.usefixtures("realistic")


def is_sendable(case: Case) -> bool:
    """Not so deep that the body is unreadable, whatever the schema."""
    try:
        text = json.dumps({"json_schema": case.schema})
        strict_json.parse_json(text)
    except (RecursionError, strict_json.NotJson):
        return False
    return len(text) < 500_000


SENDABLE = {name: case for name, case in CASES.items() if is_sendable(case)}


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 8, "max_queue": 64}})


@pytest.fixture
def realistic(runtime, clean):
    """Generations take a little, as generations do."""
    runtime.control(ms_per_token=2, reply=DEEP_ANSWER)


def send(service: Any, schema_text: str) -> Any:
    body = f'{{"model_id": "{MODEL}", "prompt": "Hello", "json_schema": {schema_text}}}'
    headers = {"Content-Type": "application/json"}
    return service.post("/v1/inference", data=body, headers=headers)


@pytest.mark.parametrize("name", SENDABLE)
def test_a_hostile_schema_is_refused_for_what_it_is_or_judged_by(name, service):
    codes = {*SENDABLE[name].outcomes} & {INVALID, UNSAFE}
    may_be_judged = codes < {*SENDABLE[name].outcomes}
    answer = asked(service, MODEL, json_schema=SENDABLE[name].schema)
    if answer.status == 200:
        assert may_be_judged
    else:
        assert (answer.status, answer.code) in {(422, code) for code in codes}
        assert answer.json()["errors"][0]["pointer"].startswith("/json_schema")


def test_a_body_that_is_too_deep_to_read_is_no_fault_of_the_service(service):
    answer = send(service, '{"items":' * 20_000 + "{}" + "}" * 20_000)
    assert answer.json()["code"] in ("malformed_request", UNSAFE)


@pytest.mark.parametrize("value", ["1e400", "-1e999", "NaN", "1" * 10_000, '"\\ud800"'])
def test_what_is_no_json_is_no_schema_either(value, service):
    assert send(service, f'{{"const": {value}}}').json()["code"] == "malformed_request"


def test_hostile_schemas_slow_nobody_down(service):
    """The best of several rounds, because the machine does other things as well."""
    ratios = []
    while len(ratios) < ROUNDS and min(ratios, default=2) >= 2:
        usual = percentile_beside(service, harmless)
        ratios.append(percentile_beside(service, hostile) / usual)
    assert min(ratios) < 2, ratios
    wait_until_at_rest(service)


def harmless(dice: Random) -> Schema:
    return {**HARMLESS, "title": f"try {dice.random()}"}


def hostile(dice: Random) -> Schema:
    schema = dice.choice([case.schema for case in SENDABLE.values()])
    return {**schema, "title": f"try {dice.random()}"}


def percentile_beside(service: Any, schema: Callable[[Random], Schema]) -> float:
    """How many seconds 99 of 100 plain requests take at most while others send such schemas."""

    def ask(dice: Random) -> Answer:
        time.sleep(PAUSE_SECONDS)  # what slows others down shall be the schemas, not their number
        return asked(service, MODEL, json_schema=schema(dice))

    with crowd(CLIENTS, ask) as seen:
        seconds = plain_requests(service)
    assert {answer.status for answer in seen} <= {200, 422}
    return percentile(seconds, 99)


def plain_requests(service: Any) -> list[float]:
    """How many seconds each of the plain requests of the next few seconds takes."""
    until = time.monotonic() + SECONDS
    seconds = []
    while time.monotonic() < until:
        answers = [asked(service, MODEL), Call(service, "/health").answer()]
        assert [answer.status for answer in answers] == [200, 200]
        seconds.append(sum(answer.seconds for answer in answers))
    return seconds
