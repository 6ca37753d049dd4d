"""A client's connection: reading requests as they arrive, and refusing invalid ones."""

from __future__ import annotations

import json
import logging
import random
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any

from gunicorn.http import errors
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.unreader import SocketUnreader

log = logging.getLogger("mes.requests")

# The media type of problem documents (RFC 9457), the bodies of all errors.
MIMETYPE = "application/problem+json"


def problem_document(
    status: int, code: str, detail: str, *, request_id: str, errors: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """Return the problem document of an error.

    Args:
        errors: mistakes of the request, each `{"pointer": ..., "detail": ...}`.

    `success` and `error` serve clients of the original interface.
    """
    return {
        "type": f"urn:mes:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": list(errors),
        "success": False,
        "error": detail,
    }


# A request up to this size is read as a whole before it gets a thread; of a larger one, the head.
_BUFFERED_BYTES = 32 * 1024

_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,9})\b", re.IGNORECASE)
_EXPECT = re.compile(rb"\nexpect:", re.IGNORECASE)


# What gunicorn raises for bytes that are not a valid request, also while a body is read.
InvalidRequest = ParseException


class RequestTooSlow(ParseException):
    """A request did not arrive before its deadline."""


class RequestReader(SocketUnreader):
    """Reads a connection without blocking, or until `deadline` (of `time.monotonic()`).

    Args:
        waits: limits how many readers of a worker may block at the same time.
    """

    def __init__(self, sock: socket.socket, waits: BoundedSemaphore) -> None:
        super().__init__(sock)
        self.deadline = 0.0
        self._waits = waits
        self._ended = False

    @property
    def has_begun(self) -> bool:
        """Whether bytes of a request have arrived that the parser has not read yet."""
        return bool(self.buf.getvalue())

    def gather(self) -> bool:
        """Read the bytes that have arrived. Return whether a thread can serve the request now.

        Raises:
            ParseException: the bytes cannot be a request.
            OSError: the client has disconnected.
        """
        if not self._is_complete():
            self._receive()
        return self._is_complete()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(_BUFFERED_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._ended = not data
        self.buf.write(data)

    def _is_complete(self) -> bool:
        arrived = self.buf.getvalue()
        end = arrived.find(b"\r\n\r\n", 0, _BUFFERED_BYTES)
        if end < 0:
            self._check_head_size(arrived)
            return False
        whole = end + 4 + _body_length(arrived[:end])
        # The application reports a body that ends too early.
        return len(arrived) >= whole or whole > _BUFFERED_BYTES or self._ended

    def _check_head_size(self, head: bytes) -> None:
        if self._ended:
            raise ConnectionResetError
        if len(head) >= _BUFFERED_BYTES:
            raise LimitRequestHeaders("") if b"\n" in head else LimitRequestLine(len(head))

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes. Raises TimeoutError after the deadline."""
        size = min(max(size_hint or 0, self.mxchunk), self.max_body_chunk)
        try:
            return bytes(self.sock.recv(size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return self._receive_until_deadline(size)

    def _receive_until_deadline(self, size: int) -> bytes:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0 or not self._waits.acquire(blocking=False):
            raise TimeoutError
        try:
            self.sock.settimeout(seconds)
            return bytes(self.sock.recv(size))
        finally:
            self.sock.settimeout(None)
            self._waits.release()


def _body_length(head: bytes) -> int:
    """Return how many bytes of body follow the head, as far as its Content-Length is readable.

    A body that the client sends only after "100 Continue" counts as 0. gunicorn's parser has the
    last word: a wrong number here delays a request, and changes nothing else.
    """
    length = _LENGTH.search(head)
    return 0 if length is None or _EXPECT.search(head) else int(length[1])


@dataclass(frozen=True)
class ServerError:
    """The status and the problem document of a request that no view sees."""

    status: int
    reason: str
    code: str
    detail: str


SERVER_ERRORS: dict[type[Exception], ServerError] = {
    RequestTooSlow: ServerError(
        408, "Request Timeout", "request_timeout", "the request did not arrive in time"
    ),
    errors.LimitRequestLine: ServerError(
        414, "URI Too Long", "uri_too_long", "the request line is too long; shorten the path"
    ),
    errors.ExpectationFailed: ServerError(
        417, "Expectation Failed", "expectation_failed", "only Expect: 100-continue can be met"
    ),
    errors.LimitRequestHeaders: ServerError(
        431,
        "Request Header Fields Too Large",
        "headers_too_large",
        "the headers are too many or too long",
    ),
    errors.UnsupportedTransferCoding: ServerError(
        501, "Not Implemented", "not_implemented", "only Transfer-Encoding: chunked is known"
    ),
    errors.ParseException: ServerError(
        400, "Bad Request", "malformed_request", "this is not a valid HTTP/1.1 request"
    ),
    Exception: ServerError(
        500,
        "Internal Server Error",
        "internal_error",
        "an error of the service; see its log",
    ),
}


def send_refusal(sock: socket.socket, error: Exception) -> None:
    """Answer an invalid request with a problem document and log it. The socket stays open."""
    refusal = next(SERVER_ERRORS[each] for each in type(error).__mro__ if each in SERVER_ERRORS)
    request_id = f"{random.getrandbits(96):024x}"
    fields = {"request_id": request_id, "status": refusal.status, "code": refusal.code}
    if refusal.status == 500:
        log.error("internal_error", exc_info=error, extra=fields)
    else:
        # Without the text of the error: it quotes the request, which may contain a key.
        log.info("request", extra={**fields, "reason": type(error).__name__})
    document = problem_document(refusal.status, refusal.code, refusal.detail, request_id=request_id)
    status_line = f"HTTP/1.1 {refusal.status} {refusal.reason}"
    _send(sock, status_line, json.dumps(document).encode(), request_id)


def _send(sock: socket.socket, status_line: str, body: bytes, request_id: str) -> None:
    head = (
        f"{status_line}\r\nContent-Type: {MIMETYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: close\r\nX-Request-ID: {request_id}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    try:
        # A client that does not read must not block the worker.
        sock.setblocking(False)
        sock.send(head.encode() + body)
    except OSError:
        pass  # the client has disconnected
