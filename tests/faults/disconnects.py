"""Clients that fill the queue, hang up at different moments, or do not read the response."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.client import BEARER, JSON, Client, Response, inference, request_head
from tests.faults.fault import SERVED, Expected, Fault
from tests.faults.runtime_faults import LONG, SILENCE, WORD
from tests.support.fake_ollama.faults import prompt_for
from tests.support.process import wait_until

ONE_AT_A_TIME = "one-at-a-time:1b"
"""A model with room for one running and one waiting request."""


def overfill(client: Client) -> Response:
    """Send one request that runs, one that waits, and one more."""
    with running(client), client.open_inference(SILENCE, model_id=ONE_AT_A_TIME) as (second, _):
        client.wait_until_queued(second)
        return client.infer(model_id=ONE_AT_A_TIME)


def hang_up_in_the_queue(client: Client) -> Response:
    """Hang up while waiting; a later request gets the place."""
    with running(client):
        with client.open_inference(SILENCE, model_id=ONE_AT_A_TIME) as (second, _):
            client.wait_until_queued(second)
        client.wait_until_queued(second, status=404)
    return client.infer(model_id=ONE_AT_A_TIME)


def hang_up_during_generation(client: Client) -> Response:
    with running(client):
        pass
    return client.infer(model_id=ONE_AT_A_TIME)


@contextmanager
def running(client: Client) -> Iterator[None]:
    """Keep an inference open that has the only permit."""
    wait_until_there_are(0, client)  # earlier requests have ended
    with client.open_inference(SILENCE, model_id=ONE_AT_A_TIME):
        wait_until_there_are(1, client)
        yield


def wait_until_there_are(number: int, client: Client) -> None:
    """Wait until `number` requests run or wait."""

    def there_are() -> bool:
        models = client.request("GET /v1/models").json["models"]
        (model,) = (each for each in models if each["id"] == ONE_AT_A_TIME)
        return bool(model["in_flight"] + model["queued"] == number)

    wait_until(there_are)


def hang_up_at_once(client: Client) -> Response:
    with client.open_inference(SILENCE):
        pass
    return client.infer()


def hang_up_in_the_headers(client: Client) -> Response:
    """Hang up before the headers end; such a request has no log line."""
    with client.connection() as sock:
        sock.sendall(b"POST /v1/inference HTTP/1.1\r\nHost:")
    return client.infer()


def do_not_read(client: Client) -> Response:
    """Do not read a response; its model must serve others meanwhile."""
    wait_until_there_are(0, client)
    request_id = client.new_id()
    body = inference(prompt_for(LONG), model_id=ONE_AT_A_TIME)
    common = ("Host: mes", f"X-Request-ID: {request_id}", BEARER, JSON)
    length = f"Content-Length: {len(body)}"
    with client.connection(buffer=4096) as sock:
        client.ids.append(request_id)
        sock.sendall(request_head("POST /v1/inference HTTP/1.1", *common, length))
        sock.sendall(body)
        assert sock.recv(1) == b"H"
        return client.infer(model_id=ONE_AT_A_TIME)


def do_not_read_the_documentation(client: Client) -> Response:
    """Do not read several answers that need no key; the model must serve others meanwhile."""
    with ExitStack() as unread:
        for path in ("/docs", "/openapi.json") * 75:  # more than there are threads
            sock = unread.enter_context(client.connection(buffer=2048))
            sock.sendall(client.build_request(f"GET {path}", key=False))
            client.ids.append(_request_id(sock))
        return client.infer()


def _request_id(sock: socket.socket) -> str:
    """Read the head of an answer and no more; return its request id, also that of a refusal."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    return head.partition(b"X-Request-ID: ")[2].partition(b"\r\n")[0].decode()


def hang_up_in_a_stream(client: Client) -> Response:
    """Hang up after the first token."""
    with client.open_inference(WORD, stream=True, timeout=600) as (_, sock):
        read = b""
        while b"token" not in read:
            read += sock.recv(65536)
    return client.infer()


TOGETHER = [
    ("S10", "hangs up at once", hang_up_at_once, SERVED),
    ("S10", "hangs up in a stream", hang_up_in_a_stream, SERVED),
    ("I2", "hangs up in the headers", hang_up_in_the_headers, SERVED),
]
ALONE = [
    ("S1", "one too many", overfill, Expected(503, "queue_full")),
    ("S9", "hangs up in the queue", hang_up_in_the_queue, SERVED),
    ("S10", "hangs up during generation", hang_up_during_generation, SERVED),
    ("S11", "does not read", do_not_read, Expected(200, within_seconds=10)),
    ("S11", "does not read the documentation", do_not_read_the_documentation, SERVED),
]
FAULTS = [*(Fault(*row) for row in TOGETHER), *(Fault(*row, alone=True) for row in ALONE)]
