"""Streams through real gunicorn: in order, at once, harmless whoever reads them or does not."""

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
    """The documents of a stream, as they come; a stream without its end fails."""
    with call.sock.makefile("rb") as file:
        status = file.readline().split()[1]
        while (header := file.readline()) != b"\r\n":
            assert header
        assert status == b"200", file.read()
        begun = b""
        while size := int(file.readline(), 16):
            begun += file.read(size)
            assert file.readline() == b"\r\n"
            # One chunk may hold several lines, and of a long line a part.
            *whole, begun = begun.split(b"\n")
            yield from map(json.loads, whole)
        assert not begun


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [each["type"] for each in told]


def logged(service: Service, code: str) -> list[dict[str, Any]]:
    return [line for line in service.log_lines("request") if line.get("code") == code]


def test_each_token_comes_when_the_runtime_says_it_and_last_the_answer(service, runtime):
    runtime.control(tokens=3, ms_per_token=300)
    came = [(time.monotonic(), told) for told in lines(stream(service))]
    *tokens, result = [told for _, told in came]
    assert kinds(tokens) == ["token"] * 3
    assert result["type"] == "result"
    assert result["output"] == "".join(token["text"] for token in tokens)
    assert came[2][0] - came[0][0] > 0.4


def test_who_has_to_wait_is_told_the_position_and_then_the_load(service, runtime):
    runtime.control(tokens=1, first_token_ms=2500)
    first = stream(service)
    wait_until_held(service, permits=1, tickets=0)
    second = stream(service)
    wait_until_held(service, permits=1, tickets=1)
    third = list(lines(stream(service)))
    queued = [told["position"] for told in third if told["type"] == "queued"]
    assert queued == [2, 1]
    assert kinds(third)[2:] == ["token", "result"]
    assert kinds(list(lines(second))) == ["queued", "token", "result"]
    assert kinds(list(lines(first))) == ["token", "result"]
    assert third[-1]["timings"]["queue_ms"] > 2000


def test_a_load_is_told(service, runtime):
    runtime.control(load_seconds=0.5)
    told = list(lines(stream(service, SLOW_TO_LOAD)))
    assert kinds(told)[:2] == ["loading", "token"]
    assert told[-1]["timings"]["cold_start"] is True
    assert service.post(f"/v1/models/{SLOW_TO_LOAD}/unload").status_code == 200


def test_what_breaks_midway_is_told_in_the_last_line(service, runtime):
    runtime.control(faults=[{"kind": "error_line", "stage": "generate", "after": 2}])
    *tokens, last = lines(stream(service))
    assert kinds(tokens) == ["token", "token"]
    assert (last["type"], last["code"], last["status"]) == ("error", "generation_aborted", 502)
    (line,) = wait_until(lambda: logged(service, "generation_aborted"))
    assert line["status"] == 502


@pytest.mark.parametrize("stage", ["loading", "before the first token", "midway"])
def test_a_caller_that_leaves_frees_its_permit_and_the_runtime(service, runtime, stage):
    model = SLOW_TO_LOAD if stage == "loading" else MODEL
    runtime.control(tokens=10_000, ms_per_token=20, load_seconds=1.0)
    runtime.control(first_token_ms=0 if stage == "midway" else 60_000)
    call = stream(service, model)
    if stage == "before the first token":
        # One to warm up, and this one.
        wait_until(lambda: runtime.model(model)["generations"] == 2)
    else:
        next(lines(call))
    call.hang_up()
    left_at = time.monotonic()
    wait_until(lambda: not held(service, "permits") and not held(service, "tickets"))
    if stage != "loading":
        assert time.monotonic() - left_at < 1.0
        wait_until(lambda: runtime.model(model)["cancelled_generations"] == 1)
    else:
        service.post(f"/v1/models/{SLOW_TO_LOAD}/unload")
    wait_until_at_rest(service)


def test_a_caller_that_leaves_the_queue_is_forgotten(service, runtime):
    runtime.control(tokens=1, first_token_ms=60_000)
    first = stream(service)
    wait_until_held(service, permits=1, tickets=0)
    with stream(service) as second:
        assert next(lines(second)) == {"type": "queued", "position": 1}
    wait_until_held(service, permits=1, tickets=0)
    first.hang_up()
    wait_until_at_rest(service)


def test_a_reader_of_one_byte_a_second_holds_no_permit(service, runtime):
    # More than sockets hold, and fewer pieces than are kept for a slow reader.
    runtime.control(reply=f"{'x' * 10_000} " * 900)
    call = stream(service)
    call.sock.recv(1)
    wait_until(lambda: runtime.model(MODEL)["generations"] == 2 and not held(service, "permits"))
    assert service.infer(MODEL, max_tokens=1).status_code == 200
    call.sock.recv(1)
    call.hang_up()
    wait_until_at_rest(service)


def test_what_was_kept_for_a_slow_reader_is_whole(service, runtime):
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
    told = [next(reading) for _ in range(10)]
    wait_until(lambda: not held(service, "permits"))
    *tokens, result = [*told, *reading]
    assert kinds(tokens) == ["token"] * 900
    assert result["output"] == "".join(token["text"] for token in tokens)


def test_clients_of_an_older_http_get_the_lines_alone(service, runtime):
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
    # More pieces than are kept, and more bytes than sockets hold: it has to wait for its reader.
    # And for so long a time that it is not done before it is cut off, however much sockets hold.
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


def test_thirty_two_streams_at_once_are_all_whole(service, runtime):
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
    # More bytes than sockets hold, so that much is kept for each: 5 MB.
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
    # A quarter of what was kept meanwhile: memory that was given back can be in pieces.
    assert resident[-1] - resident[1] < 120_000_000, resident


def _leave_unread(service: Service, calls: list[Call]) -> None:
    """Hang up when all is generated, having read nothing, a byte, or two."""
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
