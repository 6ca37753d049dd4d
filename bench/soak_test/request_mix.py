"""Wishes: what the clients of a soak ask for, and which answers each of them may get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.soaking.stage import MODELS, TOKENS
from tests.integration.helpers import Answer

_INFERENCE = "/v1/inference"
_TEXT = "".join([" alpha", " beta", " gamma", " alpha", " beta"][:TOKENS])
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_FITTING = {"name": "word", "age": 7}

# What may keep a good request from being answered while runtime and workers die.
_TROUBLES = {
    (502, "generation_aborted"),
    (502, "runtime_reply_invalid"),
    (503, "runtime_unavailable"),
    (503, "model_unavailable"),
    (504, "generation_timeout"),
    (504, "load_timeout"),
}


@dataclass(frozen=True)
class Wish:
    """One request; `model` is what the metrics call it. Hangs up after some seconds if told to."""

    kind: str
    path: str
    wrong_with: Callable[[Answer], str]
    body: Any = None
    model: str = ""
    hangs_up_after: float | None = None


def draw(dice: random.Random) -> Wish:
    """The next request of a client."""
    (make,) = dice.choices(list(_MIX), list(_MIX.values()))
    return make(dice)


def plain(model: str) -> Wish:
    """A good request that asks for text."""
    return Wish("plain", _INFERENCE, _wrong_with_text, _body(model), model)


def _plain(dice: random.Random) -> Wish:
    return plain(dice.choice(MODELS))


def _structured(dice: random.Random) -> Wish:
    model = dice.choice(MODELS)
    body = _body(model, json_schema=SCHEMA)
    return Wish("schema", _INFERENCE, _wrong_with_value, body, model)


def _hung_up(dice: random.Random) -> Wish:
    model, seconds = dice.choice(MODELS), dice.uniform(0.0, 2.0)
    return Wish("hang-up", _INFERENCE, _wrong_with_text, _body(model), model, seconds)


def _invalid(dice: random.Random) -> Wish:
    model = dice.choice(MODELS)
    status, code, body, counted_as = dice.choice(
        [
            (404, "model_not_found", _body("unheard-of:1b"), "other"),
            (422, "request_invalid", {"model_id": model}, ""),
            (422, "schema_invalid", _body(model, json_schema={"type": 5}), model),
        ]
    )
    return Wish("invalid", _INFERENCE, _wrong_unless(status, code), body, counted_as)


def _status(_: random.Random) -> Wish:
    return Wish("status", "/v1/status", _wrong_unless(200, None))


def _metrics(_: random.Random) -> Wish:
    return Wish("metrics", "/metrics", _wrong_unless(200, None))


_MIX: dict[Callable[[random.Random], Wish], int] = {
    _plain: 50,
    _structured: 20,
    _hung_up: 10,
    _invalid: 10,
    _status: 8,
    _metrics: 2,
}


def _body(model: str, **more: Any) -> dict[str, Any]:
    return {"model_id": model, "prompt": "Hello", **more}


def _wrong_unless(status: int, code: str | None) -> Callable[[Answer], str]:
    def wrong_with(answer: Answer) -> str:
        expected = (answer.status, answer.code) == (status, code)
        return "" if expected else f"{answer.status} {answer.code}, not {status} {code}"

    return wrong_with


def _wrong_with_text(answer: Answer) -> str:
    return _wrong_with(answer, "output", _TEXT)


def _wrong_with_value(answer: Answer) -> str:
    return _wrong_with(answer, "parsed", _FITTING)


def _wrong_with(answer: Answer, member: str, expected: object) -> str:
    """Either the whole answer of the model, or a clean error."""
    if answer.status == 200:
        found = answer.json()[member]
        return "" if found == expected else f"200 with {member} {found!r}"
    if (answer.status, answer.code) not in _TROUBLES:
        return f"{answer.status} {answer.code}: {answer.body[:200]!r}"
    no_op = answer.status == 503 and "retry-after" not in answer.headers
    return f"503 {answer.code} without Retry-After" if no_op else ""
