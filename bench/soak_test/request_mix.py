"""The requests of a soak test, and the answers that each of them may get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.soak_test.environment import MODELS, TOKENS
from bench.soak_test.schema_bombs import BOMBS
from tests.integration.helpers import Answer

_INFERENCE = "/v1/inference"
_TEXT = "".join([" alpha", " beta", " gamma", " alpha", " beta"][:TOKENS])
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_PARSED = {"name": "word", "age": 7}
# Of the fake runtime, which does not heed patterns.
_VERDICTS = ("valid", "schema_violation")

# The errors that a valid request may get while the runtime and workers are killed or stopped.
_ALLOWED_ERRORS = {
    # Only of a model that was deleted, see verdicts.py.
    (404, "model_not_pulled"),
    (502, "generation_aborted"),
    (502, "runtime_reply_invalid"),
    (503, "runtime_unavailable"),
    (503, "model_unavailable"),
    (503, "state_locked"),
    (504, "generation_timeout"),
    (504, "load_timeout"),
}


@dataclass(frozen=True)
class PlannedRequest:
    """One request to send.

    `find_error` returns the error in an answer, or an empty string. `model` is the label of the
    request in the metrics. With `hangs_up_after_seconds` the client does not wait for the answer.
    """

    kind: str
    path: str
    find_error: Callable[[Answer], str]
    body: Any = None
    model: str = ""
    hangs_up_after_seconds: float | None = None


def draw(rng: random.Random) -> PlannedRequest:
    """Return a random request for a client to send next."""
    (make,) = rng.choices(list(_MIX), list(_MIX.values()))
    return make(rng)


def plain(model: str) -> PlannedRequest:
    """Return a valid request for text."""
    return PlannedRequest("plain", _INFERENCE, _error_in_text, _body(model), model)


def _plain(rng: random.Random) -> PlannedRequest:
    return plain(rng.choice(MODELS))


def _structured(rng: random.Random) -> PlannedRequest:
    model = rng.choice(MODELS)
    body = _body(model, json_schema=SCHEMA)
    return PlannedRequest("schema", _INFERENCE, _error_in_value, body, model)


def _bomb(rng: random.Random) -> PlannedRequest:
    model, schema = rng.choice(MODELS), rng.choice(BOMBS)
    body = _body(model, json_schema=schema)
    return PlannedRequest("bomb", _INFERENCE, _error_in_verdict, body, model)


def _hung_up(rng: random.Random) -> PlannedRequest:
    model, seconds = rng.choice(MODELS), rng.uniform(0.0, 2.0)
    return PlannedRequest("hang-up", _INFERENCE, _error_in_text, _body(model), model, seconds)


def _invalid(rng: random.Random) -> PlannedRequest:
    model = rng.choice(MODELS)
    status, code, body, counted_as = rng.choice(
        [
            (404, "model_not_found", _body("unheard-of:1b"), "other"),
            (422, "request_invalid", {"model_id": model}, ""),
            (422, "schema_invalid", _body(model, json_schema={"type": 5}), model),
        ]
    )
    return PlannedRequest("invalid", _INFERENCE, _error_unless(status, code), body, counted_as)


def _status(_: random.Random) -> PlannedRequest:
    return PlannedRequest("status", "/v1/status", _error_unless(200, None))


def _health(_: random.Random) -> PlannedRequest:
    return PlannedRequest("health", "/health", _error_unless(200, None))


def _metrics(_: random.Random) -> PlannedRequest:
    return PlannedRequest("metrics", "/metrics", _error_unless(200, None))


_MIX: dict[Callable[[random.Random], PlannedRequest], int] = {
    _plain: 50,
    _structured: 20,
    _bomb: 5,
    _hung_up: 10,
    _invalid: 10,
    _status: 6,
    _health: 2,
    _metrics: 2,
}


def _body(model: str, **more: Any) -> dict[str, Any]:
    return {"model_id": model, "prompt": "Hello", **more}


def _error_unless(status: int, code: str | None) -> Callable[[Answer], str]:
    def find_error(answer: Answer) -> str:
        expected = (answer.status, answer.code) == (status, code)
        return "" if expected else f"{answer.status} {answer.code}, not {status} {code}"

    return find_error


def _error_in_text(answer: Answer) -> str:
    return _error_in(answer, "output", _TEXT)


def _error_in_value(answer: Answer) -> str:
    return _error_in(answer, "parsed", _PARSED)


def _error_in_verdict(answer: Answer) -> str:
    if answer.status == 200:
        verdict = answer.json()["structured"]["verdict"]
        return "" if verdict in _VERDICTS else f"200 with verdict {verdict!r}"
    if (answer.status, answer.code) == (422, "schema_unsafe"):
        return ""
    return _error_in(answer, "parsed", None)


def _error_in(answer: Answer, member: str, expected: object) -> str:
    """Return the error, if this is neither a complete answer nor an allowed error."""
    if answer.status == 200:
        found = answer.json()[member]
        return "" if found == expected else f"200 with {member} {found!r}"
    if (answer.status, answer.code) not in _ALLOWED_ERRORS:
        return f"{answer.status} {answer.code}: {answer.body[:200]!r}"
    incomplete = answer.status == 503 and "retry-after" not in answer.headers
    return f"503 {answer.code} without Retry-After" if incomplete else ""
