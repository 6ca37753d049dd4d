"""Token ids: the request for their text, and the meaning of each response."""

from __future__ import annotations

import json
import time

import pytest

from mes.errors import (
    ClientDisconnected,
    MesError,
    ModelNotPulled,
    NotCapable,
    RequestInvalid,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)
from mes.event_loop import SocketClient
from mes.ollama import OllamaRuntime

from .conftest import SPEC
from .scripted import answers, whole


def detokenize(runtime: OllamaRuntime, client: SocketClient | None = None) -> str:
    return runtime.detokenize(
        SPEC, (19556, 905), deadline=time.monotonic() + 5, client=client or SocketClient()
    )


def answered(status: int = 200, **document: object) -> bytes:
    return whole(json.dumps(document).encode(), status=status)


def test_token_ids_are_sent_with_the_options_of_a_load(serve, runtime_client):
    server = serve(answers(answered(text="Hello world")))
    assert detokenize(runtime_client(server)) == "Hello world"
    assert server.asked[0].line == "POST /api/detokenize HTTP/1.1"
    assert server.asked[0].json == {
        "model": SPEC.tag,
        "tokens": [19556, 905],
        "options": {"num_ctx": 512},
    }


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (whole(b"404 page not found", status=404), NotCapable),
        (answered(404, error="model 'x' not found"), ModelNotPulled),
        (answered(400, error="token id 9 is not in the vocabulary"), RequestInvalid),
        (answered(503, error="server busy"), RuntimeUnavailable),
        (answered(200, text=5), RuntimeReplyInvalid),
        (answered(500, error="broken"), RuntimeReplyInvalid),
    ],
)
def test_each_refusal_is_an_error_of_its_own(serve, runtime_client, answer, error):
    runtime = runtime_client(serve(answers(answer)))
    with pytest.raises(error) as caught:
        detokenize(runtime)
    if isinstance(caught.value, RequestInvalid):
        assert [each.pointer for each in caught.value.mistakes] == ["/prompt"]


def test_a_client_that_has_left_ends_the_conversion(serve, runtime_client):
    client = SocketClient()
    client.mark_disconnected()
    with pytest.raises(ClientDisconnected):
        detokenize(runtime_client(serve(answers(answered(text="Hello")))), client)


def test_every_error_is_one_of_mes(serve, runtime_client):
    with pytest.raises(MesError):
        detokenize(runtime_client(serve(answers(whole(b"<html>", status=200)))))
