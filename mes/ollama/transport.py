"""Sending requests to the runtime and reading its responses, within deadlines and limits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import requests
from urllib3 import HTTPResponse
from urllib3.util import parse_url

from mes.errors import RuntimeReplyInvalid, RuntimeUnavailable, ShuttingDown
from mes.event_loop import EventLoop
from mes.ollama.connections import RuntimeAdapter, prepare_request
from mes.ollama.error_responses import ErrorResponse, error_from, parse_error_response
from mes.ollama.exchange import Exchange, OpenExchanges, Operation

_SHORT_REQUEST = Operation("answer", RuntimeUnavailable, RuntimeUnavailable)


class Transport:
    """The connections to one runtime, for all threads of a worker.

    Args:
        host: URL, or host and port.
        pool_size: number of connections that are kept open.
        reply_timeout_seconds: for requests by `ask`.
        max_reply_bytes: a longer response is an error.
    """

    def __init__(
        self,
        *,
        host: str,
        event_loop: EventLoop,
        pool_size: int,
        connect_timeout_seconds: float,
        reply_timeout_seconds: float,
        max_reply_bytes: int,
    ) -> None:
        self._url = parse_url(host if "://" in host else f"http://{host}")
        self._address = self._url.netloc or host  # without a password, which `host` may contain
        self._event_loop = event_loop
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._open_exchanges = OpenExchanges()
        self._adapter = RuntimeAdapter(pool_size=pool_size)

    def endpoint(self, method: str, path: str) -> requests.PreparedRequest:
        """Return a request to the runtime without a body."""
        return prepare_request(method, self._url, path)

    def ask(self, request: requests.PreparedRequest, name: str = "it") -> bytes:
        """Send a short request and return the body of its response.

        `name` is the model in the error about a model that the runtime does not have.
        """
        deadline = time.monotonic() + self._reply_timeout_seconds
        with self.exchange(_SHORT_REQUEST, deadline) as exchange:
            response = self.send(exchange, request)
            if response.status != 200:
                raise error_from(self.read_refusal(exchange, response), tag=name)
            return self.read(exchange)

    def exchange(self, operation: Operation, deadline: float) -> Exchange:
        """Return an exchange that can be cancelled, and ends at the deadline."""
        return Exchange(
            operation,
            address=self._address,
            event_loop=self._event_loop,
            deadline=deadline,
            open_exchanges=self._open_exchanges,
        )

    def send(self, exchange: Exchange, request: requests.PreparedRequest) -> HTTPResponse:
        """Send a request and return its response, whose body has not been read."""
        try:
            response = self._send_once(exchange, request)
        except requests.ConnectionError:
            if not exchange.hit_stale_connection:
                raise
            exchange.retry_on_fresh_connection()
            response = self._send_once(exchange, request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            # It is never decompressed: a small response could grow without bounds.
            raise RuntimeReplyInvalid("the runtime sent an encoding that was not asked for")
        return response

    def _send_once(self, exchange: Exchange, request: requests.PreparedRequest) -> HTTPResponse:
        # The event loop cannot interrupt a connect, so the deadline is its timeout as well.
        connect = min(self._connect_timeout_seconds, max(exchange.remaining_seconds, 0.001))
        timeout = (connect, exchange.socket_timeout_seconds)
        response: HTTPResponse = self._adapter.send(request, stream=True, timeout=timeout).raw
        exchange.response = response
        return response

    def iter_body(self, exchange: Exchange) -> Iterator[bytes]:
        """Yield the body of a response; raise RuntimeReplyInvalid if it is too long."""
        return exchange.iter_body(max_bytes=self._max_reply_bytes)

    def read(self, exchange: Exchange) -> bytes:
        """Return the body of a response."""
        return b"".join(self.iter_body(exchange))

    def read_refusal(self, exchange: Exchange, response: HTTPResponse) -> ErrorResponse:
        """Read the body of a response with a status other than 200."""
        return parse_error_response(
            response.status,
            body=self.read(exchange),
            retry_after=response.headers.get("Retry-After"),
        )

    def shut_down(self) -> None:
        """End all exchanges, present and future, with ShuttingDown."""
        self._open_exchanges.cancel_all(
            lambda: ShuttingDown("the service is shutting down and waits no longer")
        )
