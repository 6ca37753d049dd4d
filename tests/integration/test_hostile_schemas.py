"""Hostile schemas under gunicorn: they are rejected, and other clients do not notice."""

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
# Each level doubles the work of a validator that follows every branch of a schema.
DEEP_ANSWER = json.dumps(nested({"a": "x"}, 24, lambda inner: {"a": inner}))

pytestmark = pytest.mark.usefixtures("realistic")


def is_sendable(case: Case) -> bool:
    """Return whether the body can be parsed: it is neither too deep nor too large."""
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
    """Make generations take a little time, as those of a real runtime do."""
    runtime.control(ms_per_token=2, reply=DEEP_ANSWER)


def send(service: Any, schema_text: str) -> Any:
    body = f'{{"model_id": "{MODEL}", "prompt": "Hello", "json_schema": {schema_text}}}'
    headers = {"Content-Type": "application/json"}
    return service.post("/v1/inference", data=body, headers=headers)


@pytest.mark.parametrize("name", SENDABLE)
def test_a_hostile_schema_is_rejected_or_used_for_validation(name, service):
    codes = {*SENDABLE[name].outcomes} & {INVALID, UNSAFE}
    may_be_accepted = codes < {*SENDABLE[name].outcomes}
    answer = asked(service, MODEL, json_schema=SENDABLE[name].schema)
    if answer.status == 200:
        assert may_be_accepted
    else:
        assert (answer.status, answer.code) in {(422, code) for code in codes}
        assert answer.json()["errors"][0]["pointer"].startswith("/json_schema")


def test_a_body_that_is_too_deep_to_parse_is_no_internal_error(service):
    answer = send(service, '{"items":' * 20_000 + "{}" + "}" * 20_000)
    assert answer.json()["code"] in ("malformed_request", UNSAFE)


@pytest.mark.parametrize("value", ["1e400", "-1e999", "NaN", "1" * 10_000, '"\\ud800"'])
def test_a_schema_that_is_not_json_is_malformed(value, service):
    assert send(service, f'{{"const": {value}}}').json()["code"] == "malformed_request"


def test_hostile_schemas_do_not_slow_down_others(service):
    """Take the best of several rounds, because the machine does other things as well."""
    ratios = []
    while len(ratios) < ROUNDS and min(ratios, default=2) >= 2:
        usual = percentile_beside(service, harmless)
        ratios.append(percentile_beside(service, hostile) / usual)
    assert min(ratios) < 2, ratios
    wait_until_at_rest(service)


def harmless(rng: Random) -> Schema:
    return {**HARMLESS, "title": f"try {rng.random()}"}


def hostile(rng: Random) -> Schema:
    schema = rng.choice([case.schema for case in SENDABLE.values()])
    return {**schema, "title": f"try {rng.random()}"}


def percentile_beside(service: Any, schema: Callable[[Random], Schema]) -> float:
    """Return the 99th percentile of the seconds of plain requests while others send schemas."""

    def ask(rng: Random) -> Answer:
        time.sleep(PAUSE_SECONDS)  # the schemas are to slow others down, not their number
        return asked(service, MODEL, json_schema=schema(rng))

    with crowd(CLIENTS, ask) as seen:
        seconds = plain_requests(service)
    assert {answer.status for answer in seen} <= {200, 422}
    return percentile(seconds, 99)


def plain_requests(service: Any) -> list[float]:
    """Send plain requests for some seconds. Return the seconds that each of them took."""
    until = time.monotonic() + SECONDS
    seconds = []
    while time.monotonic() < until:
        answers = [asked(service, MODEL), Call(service, "/health").answer()]
        assert [answer.status for answer in answers] == [200, 200]
        seconds.append(sum(answer.seconds for answer in answers))
    return seconds
