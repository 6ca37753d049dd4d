"""A client that sends exactly the given bytes, and records the id of each of its requests."""

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
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A response that was read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """Return the document; of a stream the last one, which contains its result or error."""
        return self.lines[-1] if self.streamed else json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type") == NDJSON

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def outcome(self) -> tuple[int, str | None]:
        """Return the status and the code of the final result; the code of a success is None."""
        is_json = "json" in self.headers.get("content-type", "")
        document = self.json if is_json and self.body else {}
        failed = self.streamed and document["type"] == "error"
        return document["status"] if failed else self.status, document.get("code")


class Client:
    """Opens a new connection for each request, from the local address `address`."""

    def __init__(self, service: Service, *, address: str = "127.0.0.1", seed: int = 0) -> None:
        self.service = service
        self.address = address
        self.ids: list[str] = []
        self.rng = random.Random(seed)

    def request(self, first: str, *headers: str, body: bytes = b"", key: bool = True) -> Response:
        """Send a request with an id, the length of the body and, with `key`, the key."""
        data = self.build_request(first, *headers, body=body, key=key)
        return self.send(data, method=first.split()[0])

    def post(self, body: bytes, *headers: str) -> Response:
        """Send an inference with any body, valid or not."""
        return self.request("POST /v1/inference", *(headers or (JSON,)), body=body)

    def infer(self, prompt: str = "Hello", **fields: Any) -> Response:
        return self.post(inference(prompt, **fields))

    def provoke(self, script: str, **fields: Any) -> Response:
        """Send an inference for which the fake runtime plays this script."""
        return self.infer(prompt_for(script), **fields)

    def build_request(
        self, first: str, *headers: str, body: bytes = b"", key: bool = True
    ) -> bytes:
        common = ["Host: mes", f"X-Request-ID: {self.new_id()}", *([BEARER] if key else [])]
        length = [f"Content-Length: {len(body)}"] if body else []
        return request_head(f"{first} HTTP/1.1", *common, *headers, *length) + body

    def send(self, data: bytes, *, method: str = "GET", half_close: bool = False) -> Response:
        """Send these bytes and return the response; with `half_close`, end the sending side."""
        began = time.monotonic()
        with self.connection() as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(sock, method=method)
            answer.begin()
            body = answer.read()
            answer.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        self.ids.append(headers["x-request-id"])
        return Response(answer.status, headers, body, time.monotonic() - began)

    @contextmanager
    def connection(self, *, buffer: int | None = None) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                # As on a real network; of large segments the system keeps 2.5 MB.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.bind((self.address, 0))
            sock.connect(("127.0.0.1", self.service.port))
            yield sock

    @contextmanager
    def open_inference(self, script: str, **fields: Any) -> Iterator[tuple[str, socket.socket]]:
        """Keep an inference open during the block, then hang up. Yield its id and its socket."""
        request_id = self.new_id()
        body = inference(prompt_for(script), **fields)
        common = ["Host: mes", f"X-Request-ID: {request_id}", BEARER, JSON]
        with self.connection() as sock:
            length = f"Content-Length: {len(body)}"
            sock.sendall(request_head("POST /v1/inference HTTP/1.1", *common, length) + body)
            self.ids.append(request_id)  # no response is read
            yield request_id, sock

    def wait_until_queued(self, request_id: str, *, status: int = 200) -> None:
        """Wait until the request is in the queue; with a status of 404, until it is not."""
        wait_until(lambda: self.request(f"GET /v1/queue/{request_id}").status == status)

    def new_id(self) -> str:
        return f"{self.rng.getrandbits(96):024x}"


def request_head(*lines: str) -> bytes:
    """Return these lines, unchanged, as the head of a request."""
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def send_raw(*lines: str, body: bytes = b"") -> Callable[[Client], Response]:
    """Return a function that sends this head and this body unchanged."""
    return lambda client: client.send(request_head(*lines) + body)


def inference(prompt: str = "Hello", **fields: Any) -> bytes:
    return json.dumps({"model_id": MODEL, "prompt": prompt, **fields}).encode()
