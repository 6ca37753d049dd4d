"""A level of thinking that a model refuses: the model is asked to think without one."""

from __future__ import annotations

import json

import pytest

from mes.errors import GenerationAborted, NotCapable, RequestInvalid

from .conftest import generate
from .scripted import GOOD, Peer, Script, answers, whole

REFUSALS = (
    (400, 'think value "max" is not supported for this model'),
    (400, 'invalid think value: "max" (must be "high", "medium", "low", true, or false)'),
    (500, 'unsupported Qwen3.8 reasoning effort "max"'),
)


def refusal(status: int, text: str) -> bytes:
    return whole(json.dumps({"error": text}).encode(), status, content_type="application/json")


def refuses_max(reply: bytes) -> Script:
    def script(peer: Peer) -> None:
        while (request := peer.read_request()) is not None:
            peer.send(reply if request.json["think"] == "max" else GOOD)

    return script


def sent(server):
    return [request.json["think"] for request in server.asked]


@pytest.mark.parametrize(("status", "text"), REFUSALS)
def test_the_model_is_asked_once_more_and_that_is_remembered(serve, runtime_client, status, text):
    server = serve(refuses_max(refusal(status, text)))
    runtime = runtime_client(server)
    assert generate(runtime, think="max").text == "Hello"
    assert sent(server) == ["max", True]
    assert generate(runtime, think="max").text == "Hello"
    assert generate(runtime, think="low").text == "Hello"
    assert sent(server) == ["max", True, True, "low"]


@pytest.mark.parametrize(
    ("think", "status", "text", "error"),
    [
        ("max", 400, '"m" does not support thinking', NotCapable),
        ("max", 500, "llama runner process has terminated", GenerationAborted),
        (True, 400, 'invalid think value: "max"', RequestInvalid),
    ],
)
def test_other_refusals_are_errors(serve, runtime_client, think, status, text, error):
    server = serve(answers(refusal(status, text)))
    with pytest.raises(error):
        generate(runtime_client(server), think=think)
    assert len(server.asked) == 1


def test_a_model_that_refuses_to_think_at_all_is_not_asked_for_ever(serve, runtime_client):
    server = serve(answers(refusal(*REFUSALS[1])))
    with pytest.raises(RequestInvalid):
        generate(runtime_client(server), think="max")
    assert sent(server) == ["max", True]
