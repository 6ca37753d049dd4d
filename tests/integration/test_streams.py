"""Streams under gunicorn: in order and at once, also for clients that read slowly or not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.integration.helpers import (
    Call,
    burst,
    held,
    infer,
    leaks,
    living,
    resident_bytes,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until
from tests.support.service import Service

MODEL, OTHER, SLOW_TO_LOAD = "mistral:7b", "phi3:mini", "gemma:2b"
WRITE_SECONDS = 3

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {
        MODEL: {"max_concurrent": 1, "max_queue": 10},
        OTHER: {"max_concurrent": 32},
        SLOW_TO_LOAD: {"max_concurrent": 1},
    }
    return start(
        models=models, WEB_CONCURRENCY=2, MAX_LOADED_MODELS=3, STREAM_WRITE_TIMEOUT=WRITE_SECONDS
    )


@pytest.fixture(autouse=True)
def loaded(service: Service, clean: None) -> None:
    for model in (MODEL, OTHER):
        assert service.infer(model, max_tokens=1).status_code == 200


def stream(service: Service, model: str = MODEL, **body: Any) -> Call:
    return infer(service, model, stream=True, timeout=60, **body)


def lines(call: Call) -> Iterator[dict[str, Any]]:
    """Yield the documents of a stream as they arrive. Raise an error if its end is missing."""
    with call.sock.makefile("rb") as file:
        status = file.readline().split()[1]
        while (header := file.readline()) != b"\r\n":
            assert header
        assert status == b"200", file.read()
        begun = b""
        while size := int(file.readline(), 16):
            begun += file.read(size)
            assert file.readline() == b"\r\n"
            # One chunk may contain several lines, or a part of a long line.
            *whole, begun = begun.split(b"\n")
            yield from map(json.loads, whole)
        assert not begun


def kinds(documents: list[dict[str, Any]]) -> list[str]:
    return [each["type"] for each in documents]


def logged(service: Service, code: str) -> list[dict[str, Any]]:
    return [line for line in service.log_lines("request") if line.get("code") == code]


def test_each_token_is_sent_when_it_is_generated_and_the_result_last(service, runtime):
    runtime.control(tokens=3, ms_per_token=1000)
    received = [(time.monotonic(), document) for document in lines(stream(service))]
    *tokens, result = [document for _, document in received]
    assert kinds(tokens) == ["token"] * 3
    assert result["type"] == "result"
    assert result["output"] == "".join(token["text"] for token in tokens)
    # The runtime sends them two seconds apart; a stream that is sent at its end has no gap.
    assert received[2][0] - received[0][0] > 1.0


def test_a_waiting_client_gets_its_position_and_then_its_tokens(service, runtime):
    runtime.control(tokens=1, first_token_ms=2500)
    first = stream(service)
    wait_until_held(service, permits=1, tickets=0)
    second = stream(service)
    wait_until_held(service, permits=1, tickets=1)
    third = list(lines(stream(service)))
    queued = [each["position"] for each in third if each["type"] == "queued"]
    assert queued == [2, 1]
    assert kinds(third)[2:] == ["token", "result"]
    assert kinds(list(lines(second))) == ["queued", "token", "result"]
    assert kinds(list(lines(first))) == ["token", "result"]
    assert third[-1]["timings"]["queue_ms"] > 2000


def test_a_load_is_reported(service, runtime):
    runtime.control(load_seconds=0.5)
    documents = list(lines(stream(service, SLOW_TO_LOAD)))
    assert kinds(documents)[:2] == ["loading", "token"]
    assert documents[-1]["timings"]["cold_start"] is True
    assert service.post(f"/v1/models/{SLOW_TO_LOAD}/unload").status_code == 200


def test_a_generation_that_breaks_off_is_reported_in_the_last_line(service, runtime):
    runtime.control(faults=[{"kind": "error_line", "stage": "generate", "after": 2}])
    *tokens, last = lines(stream(service))
    assert kinds(tokens) == ["token", "token"]
    assert (last["type"], last["code"], last["status"]) == ("error", "generation_aborted", 502)
    (line,) = wait_until(lambda: logged(service, "generation_aborted"))
    assert line["status"] == 502


@pytest.mark.parametrize("stage", ["loading", "before the first token", "midway"])
def test_a_client_that_hangs_up_frees_its_permit_and_the_runtime(service, runtime, stage):
    model = SLOW_TO_LOAD if stage == "loading" else MODEL
    runtime.control(tokens=10_000, ms_per_token=20, load_seconds=1.0)
    runtime.control(first_token_ms=0 if stage == "midway" else 60_000)
    call = stream(service, model)
    if stage == "before the first token":
        # The one of the fixture, and this one.
        wait_until(lambda: runtime.model(model)["generations"] == 2)
    else:
        next(lines(call))
    call.hang_up()
    # A permit that is not given back is held for 60 s at least.
    wait_until(lambda: not held(service, "permits") and not held(service, "tickets"))
    if stage != "loading":
        wait_until(lambda: runtime.model(model)["cancelled_generations"] == 1)
    else:
        service.post(f"/v1/models/{SLOW_TO_LOAD}/unload")
    wait_until_at_rest(service)


def test_a_client_that_hangs_up_in_the_queue_leaves_nothing_behind(service, runtime):
    runtime.control(tokens=1, first_token_ms=60_000)
    first = stream(service)
    wait_until_held(service, permits=1, tickets=0)
    with stream(service) as second:
        assert next(lines(second)) == {"type": "queued", "position": 1}
    wait_until_held(service, permits=1, tickets=0)
    first.hang_up()
    wait_until_at_rest(service)


def test_a_reader_of_one_byte_a_second_holds_no_permit(service, runtime):
    # More than the socket buffers take, and fewer pieces than the service keeps for a slow reader.
    runtime.control(reply=f"{'x' * 10_000} " * 900)
    call = stream(service)
    call.sock.recv(1)
    wait_until(lambda: runtime.model(MODEL)["generations"] == 2 and not held(service, "permits"))
    assert service.infer(MODEL, max_tokens=1).status_code == 200
    call.sock.recv(1)
    call.hang_up()
    wait_until_at_rest(service)


def test_a_slow_reader_gets_all_that_was_buffered(service, runtime):
    runtime.control(reply=f"{'x' * 10_000} " * 900)
    call = stream(service)
    wait_until(lambda: held(service, "permits"))
    wait_until(lambda: not held(service, "permits"))
    *tokens, result = lines(call)
    assert result["output"] == "".join(token["text"] for token in tokens)
    assert len(result["output"]) > 9_000_000


def test_a_reader_that_pauses_midway_reads_on_where_it_stopped(service, runtime):
    pieces = {"vocabulary": [f"{'x' * 10_000} ", "y "], "tokens": 900, "ms_per_token": 1}
    runtime.control(models={MODEL: pieces})
    call = stream(service, max_tokens=900)
    reading = lines(call)
    first = [next(reading) for _ in range(10)]
    wait_until(lambda: not held(service, "permits"))
    *tokens, result = [*first, *reading]
    assert kinds(tokens) == ["token"] * 900
    assert result["output"] == "".join(token["text"] for token in tokens)


def test_http_1_0_clients_get_the_lines_without_chunks(service, runtime):
    runtime.control(tokens=30, ms_per_token=5)
    body = {"model_id": MODEL, "prompt": "Hello", "stream": True}
    call = Call(service, "/v1/inference", body, version="1.0")
    with call.sock.makefile("rb") as file:
        assert file.readline().startswith(b"HTTP/1.0 200 ")
        assert b"chunked" not in b"".join(iter(file.readline, b"\r\n"))
        *tokens, result = map(json.loads, file)
    assert kinds(tokens) == ["token"] * 30
    assert result["output"] == "".join(token["text"] for token in tokens)


def test_a_reader_that_stops_is_cut_off_and_others_go_on(service, runtime):
    before = len(logged(service, "client_too_slow"))
    # More pieces than the service keeps and more bytes than the socket buffers take, so that it has
    # to wait for its reader; and so many that it is cut off before it is done.
    endless = {"vocabulary": [f"{'x' * 5000} "], "tokens": 20_000, "ms_per_token": 1}
    runtime.control(models={MODEL: endless}, tokens=50, ms_per_token=100)
    stopped = stream(service, max_tokens=20_000)
    other = list(lines(stream(service, OTHER)))
    assert kinds(other) == ["token"] * 50 + ["result"]
    wait_until(lambda: len(logged(service, "client_too_slow")) > before)
    wait_until_at_rest(service)
    wait_until(lambda: runtime.model(MODEL)["cancelled_generations"] == 1)
    stopped.hang_up()
    assert not any("Traceback" in line for line in service.other_lines())


def test_a_worker_that_is_killed_breaks_its_streams_and_gives_their_permits_back(service, runtime):
    runtime.control(tokens=10_000, ms_per_token=20)
    call = stream(service)
    reading = lines(call)
    next(reading)
    wait_until_held(service, permits=1, tickets=0)
    (worker,) = [pid for pid in living(service) if held(service, "permits", pid)]
    service.kill_worker(worker)
    with pytest.raises((ValueError, ConnectionError)):  # no last chunk, no last line
        list(reading)
    wait_until_at_rest(service, seconds=20)
    runtime.control(tokens=1)
    wait_until(lambda: len(living(service)) == 2)
    assert service.infer(MODEL).status_code == 200


def test_thirty_two_streams_at_once_are_all_complete(service, runtime):
    runtime.control(tokens=40, ms_per_token=20)
    calls = burst(service, OTHER, 32, stream=True)
    for call in calls:
        *tokens, result = lines(call)
        assert kinds(tokens) == ["token"] * 40
        assert result["output"] == "".join(token["text"] for token in tokens)
    assert runtime.model(OTHER)["peak"] > 16
    assert not leaks(service)


@pytest.mark.parametrize("reads_for_seconds", [0, 3])
def test_streams_that_are_hardly_read_leave_no_memory_behind(service, runtime, reads_for_seconds):
    # More bytes than the socket buffers take, so that the service keeps about 5 MB for each.
    runtime.control(reply=f"{'x' * 10_000} " * 500)
    resident = []
    for _ in range(5):
        ended = len(service.log_lines("request"))
        calls = burst(service, OTHER, 32, stream=True)
        for _ in range(reads_for_seconds):
            _read_a_byte(calls)
            time.sleep(1)
        _leave_unread(service, calls)
        wait_until(partial(_have_ended, service, ended + 32), seconds=30)
        resident.append(sum(map(resident_bytes, service.worker_pids())))
    # A quarter of the memory that was used meanwhile, because freed memory can be fragmented. One
    # of the first two is of a moment when the system has not got it back yet, like the last.
    assert resident[-1] - max(resident[:2]) < 120_000_000, resident


def _leave_unread(service: Service, calls: list[Call]) -> None:
    """Read up to two bytes of each, and hang up when all is generated."""
    for number, call in enumerate(calls):
        for _ in range(number % 3):
            call.sock.recv(1)
    wait_until(lambda: not held(service, "permits"), seconds=60)
    for call in calls:
        call.hang_up()


def _read_a_byte(calls: list[Call]) -> None:
    for call in calls:
        call.sock.recv(1)


def _have_ended(service: Service, requests: int) -> bool:
    return len(service.log_lines("request")) >= requests
