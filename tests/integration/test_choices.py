"""Requests with several choices under four workers: permits, fairness and clients that leave."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from tests.integration.helpers import (
    Answer,
    Call,
    answers,
    asked,
    crowd,
    held,
    infer,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until
from tests.support.service import Service

MODEL = "mistral:7b"
FAULT = {"kind": "error_line", "stage": "generate", "after": 2, "times": 1}
HELLO = [{"role": "user", "content": "Hello"}]

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    return start(models={MODEL: {"max_concurrent": 3, "max_queue": 6}}, STREAM_WRITE_TIMEOUT=3)


@pytest.fixture(autouse=True)
def loaded(service: Service, clean: None) -> None:
    assert service.infer(MODEL, max_tokens=1).status_code == 200


def chat(service: Service, **fields: object) -> Call:
    return Call(service, "/v1/chat/completions", {"model": MODEL, "messages": HELLO, **fields})


def events(call: Call) -> Iterator[str]:
    with call.sock.makefile("rb") as file:
        for line in file:
            if line.startswith(b"data: "):
                yield line[6:].strip().decode()


def test_an_idle_model_answers_more_choices_than_its_queue_has_places(service, runtime):
    before = runtime.model(MODEL)["generations"]
    runtime.control(first_token_ms=50)
    prompts = [f"p{number}" for number in range(40)]
    body = {"model": MODEL, "prompt": prompts, "max_tokens": 2}
    answer = Call(service, "/v1/completions", body).answer()
    assert [each["index"] for each in answer.json()["choices"]] == list(range(40))
    assert runtime.model(MODEL)["generations"] == before + 40
    assert runtime.model(MODEL)["peak"] == 3


def test_permits_never_exceed_the_limit_with_many_choices_under_load(service, runtime):
    runtime.control(tokens=3, ms_per_token=5)

    def ask(rng: random.Random) -> Answer:
        call = chat(service, n=rng.randint(1, 8), stream=rng.random() < 0.5)
        if rng.random() < 0.2:
            wait_until(lambda: held(service, "permits"))
            call.hang_up()
            return Answer(200, {}, b"", 0.0)
        return call.answer()

    with crowd(12, ask) as seen:
        wait_until(lambda: len(seen) >= 100, seconds=120)
        assert held(service, "permits") <= 3
    assert {answer.status for answer in seen} <= {200, 503}
    assert any(answer.body for answer in seen if answer.status == 200)
    assert runtime.model(MODEL)["peak"] <= 3
    wait_until_at_rest(service)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_all_its_choices(service, runtime, stream):
    cancelled = runtime.model(MODEL)["cancelled_generations"]
    runtime.control(tokens=10_000, ms_per_token=20)
    with chat(service, n=8, max_tokens=10_000, stream=stream):
        wait_until_held(service, permits=3, tickets=0)
        wait_until(lambda: runtime.model(MODEL)["peak"] == 3)
    wait_until_at_rest(service, seconds=10)
    # The runtime may still notice clients of the test before.
    wait_until(lambda: runtime.model(MODEL)["cancelled_generations"] >= cancelled + 3)


def test_a_client_that_hangs_up_while_all_its_choices_wait_leaves_no_ticket(service, runtime):
    runtime.control(first_token_ms=60_000)
    with infer(service, MODEL), infer(service, MODEL), infer(service, MODEL):
        wait_until_held(service, permits=3, tickets=0)
        with chat(service, n=8):
            wait_until_held(service, permits=3, tickets=3)
        wait_until_held(service, permits=3, tickets=0)
    wait_until_at_rest(service)


def test_one_failure_ends_all_choices_and_is_the_answer(service, runtime):
    runtime.control(tokens=10_000, ms_per_token=20, faults=[FAULT])
    answer = chat(service, n=3, max_tokens=10_000).answer()
    assert answer.status == 502
    wait_until_at_rest(service)


def test_other_requests_get_their_turn_between_the_choices(service, runtime):
    runtime.control(first_token_ms=5_000, tokens=1)
    many = Call(service, "/v1/completions", {"model": MODEL, "prompt": ["a"] * 30})
    wait_until_held(service, permits=3, tickets=0)
    single = infer(service, MODEL, "single")
    wait_until_held(service, permits=3, tickets=1)
    runtime.control(first_token_ms=10)
    assert {answer.status for answer in answers([many, single])} == {200}
    arrivals = [each["prompt"] for each in runtime.stats()["arrivals"]]
    # Three hold permits at a time, and reach the runtime in any order.
    assert arrivals.index("single") - arrivals.index("a") <= 6


def test_a_request_that_has_begun_is_not_refused_for_a_full_queue(service, runtime):
    runtime.control(first_token_ms=20, tokens=1)

    def ask(rng: random.Random) -> Answer:
        return asked(service, MODEL)

    with crowd(20, ask) as seen:
        wait_until(lambda: any(answer.status == 503 for answer in seen))
        body = {"model": MODEL, "prompt": ["a"] * 40, "stream": True}
        # Until the first of its tickets finds a place.
        received = wait_until(lambda: list(events(Call(service, "/v1/completions", body))))
        assert received[-1] == "[DONE]"


def test_a_stream_of_choices_that_is_not_read_ends_and_gives_back_its_permits(service, runtime):
    runtime.control(tokens=200_000, ms_per_token=0)
    call = chat(service, n=3, max_tokens=200_000, stream=True)
    next(events(call))
    wait_until_at_rest(service, seconds=30)
    call.hang_up()


def test_chunks_of_all_choices_arrive_while_all_are_generated(service, runtime):
    runtime.control(tokens=2, ms_per_token=2_000)
    received = events(chat(service, n=3, stream=True))
    first = {json.loads(next(received))["choices"][0]["index"] for _ in range(3)}
    assert first == {0, 1, 2}
    assert held(service, "permits") == 3
    assert list(received)[-1] == "[DONE]"


def test_comments_keep_a_silent_stream_of_choices_open(start, runtime):
    service = start(models={MODEL: {"max_concurrent": 2}}, STREAM_KEEPALIVE=1, WEB_CONCURRENCY=1)
    runtime.control(first_token_ms=2_500, tokens=2)
    answer = chat(service, n=4, stream=True).answer()
    assert answer.status == 200
    text = answer.body.decode()
    assert text.index(": waiting") < text.index("data: ")
    assert text.count('"finish_reason":"stop"') == 4
    assert text.count("data: [DONE]") == 1


def test_token_ids_are_refused_where_the_runtime_cannot_read_them(service, runtime):
    answer = Call(service, "/v1/completions", {"model": MODEL, "prompt": [1, 2]}).answer()
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "request_invalid")
    assert "send the prompt as text" in error["message"]
    assert runtime.model(MODEL)["generations"] == 1  # of the fixture
