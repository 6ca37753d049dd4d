"""Callers that crowd each other out, leave in the middle, or do not read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.client import BEARER, JSON, Client, Heard, inference, raw
from tests.faults.fault import SERVED, Expected, Fault
from tests.faults.upstream import LONG, SILENCE, WORD
from tests.support.fake_ollama.faults import prompt_for
from tests.support.process import wait_until

LONELY = "lonely:1b"
"""A model of which one runs and one waits."""


def overfill(client: Client) -> Heard:
    """One that runs, one that waits, and one more."""
    with running(client), client.open_exchanges(SILENCE, model_id=LONELY) as (second, _):
        client.wait_until_queued(second)
        return client.infer(model_id=LONELY)


def leave_the_queue(client: Client) -> Heard:
    """Whoever comes later has the place."""
    with running(client):
        with client.open_exchanges(SILENCE, model_id=LONELY) as (second, _):
            client.wait_until_queued(second)
        client.wait_until_queued(second, status=404)
    return client.infer(model_id=LONELY)


def leave_a_generation(client: Client) -> Heard:
    with running(client):
        pass
    return client.infer(model_id=LONELY)


@contextmanager
def running(client: Client) -> Iterator[None]:
    """An inference that has the one permit."""
    wait_until_there_are(0, client)  # whoever was there before has left
    with client.open_exchanges(SILENCE, model_id=LONELY):
        wait_until_there_are(1, client)
        yield


def wait_until_there_are(number: int, client: Client) -> None:
    """So many that run or wait."""

    def there_are() -> bool:
        models = client.ask("GET /v1/models").json["models"]
        (lonely,) = (each for each in models if each["id"] == LONELY)
        return bool(lonely["in_flight"] + lonely["queued"] == number)

    wait_until(there_are)


def leave_at_once(client: Client) -> Heard:
    with client.open_exchanges(SILENCE):
        pass
    return client.infer()


def leave_half_said(client: Client) -> Heard:
    """A request that never becomes one, and of which there is nothing to tell."""
    with client.connection() as sock:
        sock.sendall(b"POST /v1/inference HTTP/1.1\r\nHost:")
    return client.infer()


def read_slowly(client: Client) -> Heard:
    """While somebody does not read an answer, its model serves others."""
    wait_until_there_are(0, client)
    request_id = client.new_id()
    body = inference(prompt_for(LONG), model_id=LONELY)
    own = ("Host: mes", f"X-Request-ID: {request_id}", BEARER, JSON)
    with client.connection(buffer=4096) as sock:
        client.ids.append(request_id)
        sock.sendall(raw("POST /v1/inference HTTP/1.1", *own, f"Content-Length: {len(body)}"))
        sock.sendall(body)
        assert sock.recv(1) == b"H"
        began = time.monotonic()
        heard = client.infer(model_id=LONELY)
        assert time.monotonic() - began < 10
        return heard


def leave_a_stream(client: Client) -> Heard:
    """Once there is something to read."""
    with client.open_exchanges(WORD, stream=True, timeout=600) as (_, sock):
        read = b""
        while b"token" not in read:
            read += sock.recv(65536)
    return client.infer()


TOGETHER = [
    ("S10", "leaves at once", leave_at_once, SERVED),
    ("S10", "leaves a stream", leave_a_stream, SERVED),
    ("I2", "leaves half said", leave_half_said, SERVED),
]
ALONE = [
    ("S1", "one too many", overfill, Expected(503, "queue_full", within_seconds=5)),
    ("S9", "leaves the queue", leave_the_queue, SERVED),
    ("S10", "leaves a generation", leave_a_generation, SERVED),
    ("S11", "does not read", read_slowly, SERVED),
]
FAULTS = [*(Fault(*row) for row in TOGETHER), *(Fault(*row, alone=True) for row in ALONE)]
