"""Server-sent events under gunicorn: sent at once, also to clients that stop reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.helpers import Call, held, wait_until_at_rest, wait_until_held
from tests.support.process import wait_until
from tests.support.service import Service

MODEL = "mistral:7b"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    return start(models={MODEL: {"max_concurrent": 1, "max_queue": 10}}, STREAM_WRITE_TIMEOUT=3)


@pytest.fixture(autouse=True)
def loaded(service: Service, clean: None) -> None:
    assert service.infer(MODEL, max_tokens=1).status_code == 200


def chat(service: Service, **fields: Any) -> Call:
    hello = [{"role": "user", "content": "Hello"}]
    body = {"model": MODEL, "messages": hello, "stream": True, **fields}
    return Call(service, "/v1/chat/completions", body)


def events(call: Call) -> Iterator[str]:
    """Yield the data of each event as it arrives."""
    with call.sock.makefile("rb") as file:
        for line in file:
            if line.startswith(b"data: "):
                yield line[6:].strip().decode()


def test_a_token_is_sent_before_the_next_one_is_generated(service, runtime):
    runtime.control(tokens=2, ms_per_token=5_000)
    received = events(chat(service))
    assert json.loads(next(received))["choices"][0]["delta"]["content"] == " alpha"
    assert held(service, "permits") == 1
    *_, last = received
    assert last == "[DONE]"


def test_the_tokens_of_a_stream_are_those_of_the_whole_answer(service, runtime):
    reply = "Go\u2028 \x85 \U0001f680 home"
    runtime.control(reply=reply)
    body = {"model": MODEL, "prompt": "Hello", "logprobs": 1}
    (whole,) = Call(service, "/v1/completions", body).answer().json()["choices"]
    assert whole["logprobs"]["text_offset"] == [0, 2, 7]
    assert [each.keys() for each in whole["logprobs"]["top_logprobs"]] == [
        {token} for token in whole["logprobs"]["tokens"]
    ]

    *data, done = events(Call(service, "/v1/completions", {**body, "stream": True}))
    *chunks, last = [json.loads(each)["choices"][0] for each in data]
    assert "".join(each["text"] for each in chunks) == reply
    for name, values in whole["logprobs"].items():
        assert [value for each in chunks for value in each["logprobs"][name]] == values
    assert (last["logprobs"], done) == (None, "[DONE]")


def test_the_response_headers_keep_proxies_from_buffering(service):
    answer = chat(service, max_tokens=1).answer()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"


def test_a_full_queue_is_an_http_status_and_no_event(service, runtime):
    runtime.control(first_token_ms=60_000)
    with chat(service):
        wait_until_held(service, permits=1, tickets=0)
        waiting = [chat(service) for _ in range(10)]
        wait_until_held(service, permits=1, tickets=10)
        refused = chat(service).answer()
        assert refused.status == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "queue_full"
        for call in waiting:
            call.hang_up()
    wait_until_at_rest(service)


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_client_that_hangs_up_cancels_the_generation(service, runtime, pieces):
    before = runtime.model(MODEL)["cancelled_generations"]
    runtime.control(tokens=10_000, first_token_ms=0 if pieces else 60_000, ms_per_token=20)
    call = chat(service, max_tokens=10_000)
    received = events(call)
    for _ in range(pieces):
        next(received)
    wait_until_held(service, permits=1, tickets=0)
    call.hang_up()
    received.close()
    wait_until(lambda: not held(service, "permits"))
    wait_until(lambda: runtime.model(MODEL)["cancelled_generations"] == before + 1)
    wait_until_at_rest(service)


def test_a_reader_that_stops_is_cut_off(service, runtime):
    runtime.control(vocabulary=[f"{'x' * 5000} "], tokens=20_000, ms_per_token=1)
    stopped = chat(service, max_tokens=20_000)
    wait_until_at_rest(service, seconds=60)
    wait_until(lambda: runtime.model(MODEL)["cancelled_generations"] == 1)
    stopped.hang_up()


def test_a_generation_that_breaks_off_ends_with_an_error_and_not_with_done(service, runtime):
    runtime.control(tokens=9, faults=[{"kind": "cut", "stage": "generate", "after": 2}])
    *tokens, last = events(chat(service))
    assert len(tokens) == 2
    assert json.loads(last)["error"]["code"] == "generation_aborted"
    wait_until_at_rest(service)
