"""Streams that are silent for long: comments keep their connections open, also behind nginx."""

from __future__ import annotations

import json

import pytest

from tests.integration.helpers import Call, burst, wait_until_at_rest, wait_until_held
from tests.support.nginx import NEEDED, SHIPPED, Nginx, replaced
from tests.support.process import wait_until

MODEL = "mistral:7b"
FOR_EVER_MS = 600_000
COMMENT = b": waiting\n\n"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 1, "max_queue": 10}}, STREAM_KEEPALIVE=0.3)


@pytest.fixture
def loaded(service):
    assert service.infer(MODEL, max_tokens=1).status_code == 200


@pytest.fixture
def busy(service, runtime, loaded):
    """Occupy the only permit. Return the request that holds it."""
    runtime.control(first_token_ms=FOR_EVER_MS)
    (call,) = burst(service, MODEL, 1)
    wait_until_held(service, permits=1, tickets=0)
    wait_until(lambda: runtime.model(MODEL)["current"] == 1)
    runtime.control(first_token_ms=0)
    yield call
    call.hang_up()
    wait_until_at_rest(service)


def chat(server, **fields):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    return Call(server, "/v1/chat/completions", {**body, **fields})


def unchunked(body):
    """Return the content of a chunked body. Raise ValueError if the framing is broken."""
    content = b""
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        content += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        body = rest[length + 2 :]
        if length == 0:
            assert body == b""
            return content


def read_until(call, text, received=b""):
    while text not in received:
        piece = call.sock.recv(65536)
        assert piece, received
        received += piece
    return received


def finished(call, received):
    """Return the events after the comments, from the whole response."""
    while piece := call.sock.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    content = unchunked(body)
    comments = content.count(COMMENT)
    events = [
        each.removeprefix(b"data: ").decode()
        for each in content.replace(COMMENT, b"").split(b"\n\n")[:-1]
    ]
    return head.decode(), comments, events


def text_of(events):
    chunks = [json.loads(each) for each in events[:-1]]
    assert events[-1] == "[DONE]"
    return "".join(choice["delta"].get("content", "") for x in chunks for choice in x["choices"])


def test_a_stream_that_waits_in_the_queue_begins_with_comments(service, runtime, busy):
    call = chat(service)
    received = b""
    while received.count(b": waiting") < 3:
        received = read_until(call, b": waiting", received) + call.sock.recv(65536)
    busy.hang_up()
    head, comments, events = finished(call, received)
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    for header in ("text/event-stream", "X-Request-ID: ", "nosniff", "X-Accel-Buffering: no"):
        assert header in head
    assert comments >= 3
    assert text_of(events) == text_of(finished(chat(service), b"")[2]) != ""


def test_comments_fill_a_long_prompt_and_the_pauses_between_tokens(service, runtime, loaded):
    runtime.control(first_token_ms=1000, tokens=3, ms_per_token=1000)
    _, comments, events = finished(chat(service), b"")
    assert comments >= 3
    assert text_of(events) == " alpha beta gamma"


def test_an_error_after_the_first_comment_is_the_last_event(service, runtime, busy):
    call = chat(service)
    received = read_until(call, b": waiting")
    runtime.control(mode="error")
    busy.hang_up()
    head, _, events = finished(call, received)
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    (last,) = events
    error = json.loads(last)["error"]
    assert error["code"] == "generation_aborted"

    def logged():
        lines = service.log_lines("request")
        return [each for each in lines if each["request_id"] == error["request_id"]]

    (line,) = wait_until(logged)
    assert (line["status"], line["code"]) == (502, "generation_aborted")


def test_an_error_before_the_first_comment_has_its_status(service, loaded):
    answer = chat(service, model="nope").answer()
    assert answer.status == 404


def test_a_client_that_leaves_after_a_comment_leaves_the_queue(service, busy):
    call = chat(service)
    read_until(call, b": waiting")
    wait_until_held(service, permits=1, tickets=1)
    call.hang_up()
    wait_until_held(service, permits=1, tickets=0)


@pytest.mark.parametrize("path", ["/v1/inference", "/v1/chat/completions"])
def test_no_comment_is_sent_outside_of_server_sent_events(service, runtime, loaded, path):
    runtime.control(first_token_ms=1000)
    body = {"model_id": MODEL, "prompt": "Hello", "stream": True}
    if path != "/v1/inference":
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    answer = Call(service, path, body).answer()
    assert answer.status == 200
    assert b"waiting" not in answer.body


@NEEDED
def test_a_proxy_with_a_short_timeout_keeps_a_silent_stream(service, runtime, loaded, tmp_path):
    text = replaced(SHIPPED.read_text(), "proxy_read_timeout 4591s;", "proxy_read_timeout 1s;")
    runtime.control(first_token_ms=4000)
    with Nginx(tmp_path, service.port, text=text) as nginx:
        _, comments, events = finished(chat(nginx), b"")
        assert comments >= 3
        assert text_of(events)
        cut = Call(nginx, "/v1/inference", {"model_id": MODEL, "prompt": "Hello"}).answer()
        assert cut.status == 504
