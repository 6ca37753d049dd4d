"""A client that says exactly what it is told, and knows the id of each of its requests."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.ollama.scripted import NDJSON
from tests.support.fake_ollama.faults import prompt_for
from tests.support.process import wait_until
from tests.support.service import KEY, Service

MODEL = "mistral:7b"
JSON = "Content-Type: application/json"
BEARER = f"Authorization: Bearer {KEY}"
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Heard:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """The document; of a stream the last one, which tells what became of it."""
        return self.lines[-1] if self.streamed else json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type") == NDJSON

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def outcome(self) -> tuple[int, str | None]:
        """Status and code of what came of it; no code is that of a success."""
        is_json = "json" in self.headers.get("content-type", "")
        told = self.json if is_json and self.body else {}
        status = told["status"] if self.streamed and told["type"] == "error" else self.status
        return status, told.get("code")


class Client:
    """Makes a new connection for each request; `address` is where it calls from."""

    def __init__(self, service: Service, *, address: str = "127.0.0.1", seed: int = 0) -> None:
        self.service = service
        self.address = address
        self.ids: list[str] = []
        self.dice = random.Random(seed)

    def ask(self, first: str, *headers: str, body: bytes = b"", key: bool = True) -> Heard:
        """A request with a key, an id and a body of this length."""
        return self.say(self.request(first, *headers, body=body, key=key), method=first.split()[0])

    def post(self, body: bytes, *headers: str) -> Heard:
        """An inference with this body, whatever it is."""
        return self.ask("POST /v1/inference", *(headers or (JSON,)), body=body)

    def infer(self, prompt: str = "Hello", **fields: Any) -> Heard:
        return self.post(inference(prompt, **fields))

    def provoke(self, script: str, **fields: Any) -> Heard:
        """An inference at which the runtime plays this script."""
        return self.infer(prompt_for(script), **fields)

    def request(self, first: str, *headers: str, body: bytes = b"", key: bool = True) -> bytes:
        own = ["Host: mes", f"X-Request-ID: {self.new_id()}", *([BEARER] if key else [])]
        sized = [f"Content-Length: {len(body)}"] if body else []
        return raw(f"{first} HTTP/1.1", *own, *headers, *sized) + body

    def say(self, data: bytes, *, method: str = "GET", hang_up: bool = False) -> Heard:
        """Send these bytes and hear the answer to them; with `hang_up`, after half a close."""
        began = time.monotonic()
        with self.connection() as sock:
            sock.sendall(data)
            if hang_up:
                sock.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(sock, method=method)
            answer.begin()
            body = answer.read()
            answer.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        self.ids.append(headers["x-request-id"])
        return Heard(answer.status, headers, body, time.monotonic() - began)

    @contextmanager
    def connection(self, *, buffer: int | None = None) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.settimeout(_PATIENCE_SECONDS)
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.bind((self.address, 0))
            sock.connect(("127.0.0.1", self.service.port))
            yield sock

    @contextmanager
    def open_exchanges(self, script: str, **fields: Any) -> Iterator[tuple[str, socket.socket]]:
        """An inference that goes on inside the block, and is hung up at its end; its id."""
        request_id = self.new_id()
        body = inference(prompt_for(script), **fields)
        own = ["Host: mes", f"X-Request-ID: {request_id}", BEARER, JSON]
        with self.connection() as sock:
            length = f"Content-Length: {len(body)}"
            sock.sendall(raw("POST /v1/inference HTTP/1.1", *own, length) + body)
            self.ids.append(request_id)  # no answer will tell it
            yield request_id, sock

    def wait_until_queued(self, request_id: str, *, status: int = 200) -> None:
        """With a status of 404, until it waits no more."""
        wait_until(lambda: self.ask(f"GET /v1/queue/{request_id}").status == status)

    def new_id(self) -> str:
        return f"{self.dice.getrandbits(96):024x}"


def raw(*lines: str) -> bytes:
    """The head of a request, as it is."""
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def sends(*lines: str, body: bytes = b"") -> Callable[[Client], Heard]:
    """What sends this head and this body, as they are."""
    return lambda client: client.say(raw(*lines) + body)


def inference(prompt: str = "Hello", **fields: Any) -> bytes:
    return json.dumps({"model_id": MODEL, "prompt": prompt, **fields}).encode()
