"""Pulls: progress, success and failure."""

from __future__ import annotations

import json
import threading
import time

import pytest

from mes.domain import PullProgress
from mes.errors import (
    ClientDisconnected,
    MesError,
    PullFailed,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)
from mes.event_loop import SocketClient

from .scripted import STREAM, answers, chunk, line, once, replay, streamed, whole

LAYER = line(status="pulling 97f732d6b8a1", digest="sha256:97", total=400, completed=100)
SUCCESS = line(status="success")
NOT_THERE = "pull model manifest: file does not exist"


def pull(runtime, *, within=10.0, client=None):
    deadline = time.monotonic() + within
    return list(runtime.pull("tiny:1b", deadline=deadline, client=client or SocketClient()))


def test_a_pull_yields_its_progress_until_it_succeeds(serve, runtime_client):
    server = serve(once(streamed(line(status="pulling manifest"), LAYER, SUCCESS)))
    assert pull(runtime_client(server)) == [
        PullProgress("pulling manifest"),
        PullProgress("pulling 97f732d6b8a1", 100, 400),
    ]
    assert server.asked[0].line == "POST /api/pull HTTP/1.1"
    assert server.asked[0].json == {"model": "tiny:1b", "stream": True}


def test_a_pull_may_be_longer_than_other_responses(serve, runtime_client):
    server = serve(once(streamed(*[LAYER] * 1000, SUCCESS)))
    assert len(pull(runtime_client(server, max_reply_bytes=1000))) == 1000


@pytest.mark.parametrize(
    "invalid", ["text", -1, 2.5, None, True], ids=lambda value: f"completed={value}"
)
def test_an_invalid_number_fails_no_pull(serve, runtime_client, invalid):
    layer = line(status="pulling 97f732d6b8a1", total=400, completed=invalid)
    progress = pull(runtime_client(serve(once(streamed(layer, SUCCESS)))))
    assert progress == [PullProgress("pulling 97f732d6b8a1", None, 400)]


FAILURES = {
    "an error line with status 200": (streamed(LAYER, line(error=NOT_THERE)), PullFailed),
    "no success": (streamed(LAYER), PullFailed),
    "an empty stream": (streamed(), PullFailed),
    "closed between lines": (STREAM + chunk(LAYER), PullFailed),
    "closed inside a line": (STREAM + chunk(LAYER[:20]), PullFailed),
    "closed without an answer": (b"", PullFailed),
    "a name that is not there": (whole(json.dumps({"error": NOT_THERE}).encode(), 404), PullFailed),
    "a page": (whole(b"<html>Bad Gateway</html>", 502), RuntimeReplyInvalid),
    "a page with status 200": (whole(b"<html>hello</html>"), RuntimeReplyInvalid),
    "a route that is not there": (whole(b"404 page not found", 404), RuntimeReplyInvalid),
    "a line without end": (streamed(b'{"status": "' + b"x" * 200_000), RuntimeReplyInvalid),
    "too busy": (whole(b'{"error": "server busy"}', 503), RuntimeUnavailable),
}


@pytest.mark.parametrize(("answer", "kind"), FAILURES.values(), ids=FAILURES)
def test_every_end_without_success_is_an_error(serve, runtime_client, answer, kind: type[MesError]):
    with pytest.raises(kind):
        pull(runtime_client(serve(once(answer))))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("pull-no-network", "no such host"),
        ("pull-no-network-nostream", "no such host"),
        ("pull-bad-name", "invalid model name"),
    ],
)
def test_a_failed_pull_of_a_real_ollama_names_the_reason(serve, runtime_client, case, words):
    with pytest.raises(PullFailed, match=words):
        pull(runtime_client(serve(replay(case))))


def test_the_text_of_the_runtime_is_the_detail(serve, runtime_client):
    with pytest.raises(PullFailed, match=NOT_THERE):
        pull(runtime_client(serve(once(streamed(LAYER, line(error=NOT_THERE))))))


def test_a_runtime_that_does_not_run_is_unavailable(runtime_client):
    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        pull(runtime_client("http://127.0.0.1:1"))


def test_a_pull_ends_at_its_deadline(serve, runtime_client):
    def stuck(peer):
        peer.read_request()
        peer.send(STREAM + chunk(LAYER))
        peer.closed_within(30)

    with pytest.raises(PullFailed, match="in time"):
        pull(runtime_client(serve(stuck)), within=0.3)


def test_a_client_that_disconnects_ends_the_pull_in_the_runtime(serve, runtime_client):
    client, told, noticed = SocketClient(), threading.Event(), threading.Event()

    def endless(peer):
        peer.read_request()
        peer.send(STREAM + chunk(LAYER))
        told.set()
        if peer.closed_within(30):
            noticed.set()

    hang_up = threading.Thread(target=lambda: told.wait(30) and client.mark_disconnected())
    hang_up.start()
    with pytest.raises(ClientDisconnected):
        pull(runtime_client(serve(endless)), within=30, client=client)
    hang_up.join()
    assert noticed.wait(10)


def test_closing_the_iterator_ends_the_pull_in_the_runtime(serve, runtime_client):
    noticed = threading.Event()

    def endless(peer):
        peer.read_request()
        peer.send(STREAM + chunk(LAYER))
        if peer.closed_within(30):
            noticed.set()

    deadline = time.monotonic() + 30
    progress = runtime_client(serve(endless)).pull(
        "tiny:1b", deadline=deadline, client=SocketClient()
    )
    assert next(progress).completed_bytes == 100
    progress.close()
    assert noticed.wait(10)


def test_the_connection_is_reused_before_and_after(serve, runtime_client):
    version = whole(b'{"version": "1.0"}')
    server = serve(answers(version, streamed(LAYER, SUCCESS), version))
    runtime = runtime_client(server)
    assert runtime.version() == "ollama 1.0"
    assert len(pull(runtime)) == 1
    assert runtime.version() == "ollama 1.0"
    assert server.connections == 1
