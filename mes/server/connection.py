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

from mes.server.request_kinds import ServiceBusy

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


# A request line of HTTP/1.0 or HTTP/1.1, and bytes that are in none, such as those of TLS.
_REQUEST_LINE = re.compile(rb"[A-Z0-9!#$%&'*+.^_`|~-]{3,20} [!-~]+ HTTP/1\.[01]")
_NOT_TEXT = re.compile(rb"[^\r -~]")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class RequestTooSlow(ParseException):
    """A request did not arrive before its deadline."""


class BodyTooLarge(ParseException):
    """A body announces a chunk of more bytes than a body may have."""


class BareLineFeed(ParseException):
    """A line of the head ends with LF instead of CRLF."""


class NotARequest(ParseException):
    """The first line is no request line."""


class ConnectRefused(ParseException):
    """The method is CONNECT, which asks for a tunnel."""


def check_head(head: bytes) -> None:
    """Raise a ParseException if no more bytes can make this start of a head valid.

    The client gets the answer at once, and not after the time in which a request has to arrive.
    """
    if _BARE_LINE_FEED.search(head):
        raise BareLineFeed
    line, end, _ = head.removeprefix(b"\r\n").partition(b"\r\n")
    if line.startswith(b"CONNECT ") and end:
        raise ConnectRefused
    if _NOT_TEXT.search(line) or (end and not _REQUEST_LINE.fullmatch(line)):
        raise NotARequest


class RequestReader(SocketUnreader):
    """Reads a connection without blocking, or until `deadline` (of `time.monotonic()`).

    Args:
        waits: limits how many readers of a worker may block at the same time.
        max_body_bytes: the maximum size of a body, and so of a chunk.
    """

    def __init__(
        self, sock: socket.socket, waits: BoundedSemaphore, *, max_body_bytes: int
    ) -> None:
        super().__init__(sock)
        self.deadline = 0.0
        self._max_body_bytes = max_body_bytes
        self._waits = waits
        self._ended = False

    @property
    def head(self) -> bytes:
        """The head of the request that has arrived, with the empty line at its end."""
        arrived: bytes = self.buf.getvalue()
        head, end, _ = arrived.partition(b"\r\n\r\n")
        return head.removeprefix(b"\r\n") + end

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
        head, end, _ = self.buf.getvalue().partition(b"\r\n\r\n")
        check_head(head + end)
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
        """Return the next bytes.

        `size_hint` is the number of bytes that are left of the body, or of a chunk of it.

        Raises:
            BodyTooLarge: this is more than a body may have, and nothing has arrived.
            TimeoutError: nothing has arrived until the deadline.
        """
        size = min(max(size_hint or 0, self.mxchunk), self.max_body_chunk)
        try:
            return bytes(self.sock.recv(size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            if (size_hint or 0) > self._max_body_bytes and time.monotonic() < self.deadline:
                raise BodyTooLarge from None
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
    headers: str = ""


SERVER_ERRORS: dict[type[Exception], ServerError] = {
    RequestTooSlow: ServerError(
        408, "Request Timeout", "request_timeout", "the request did not arrive in time"
    ),
    BareLineFeed: ServerError(
        400, "Bad Request", "malformed_request", "a line of the head ends with LF; use CR LF"
    ),
    NotARequest: ServerError(
        400,
        "Bad Request",
        "malformed_request",
        "the first line is not a request line such as `GET /health HTTP/1.1`; MES speaks HTTP/1.1 "
        "and HTTP/1.0, without TLS",
    ),
    ConnectRefused: ServerError(
        405,
        "Method Not Allowed",
        "method_not_allowed",
        "MES is no proxy, so there is no CONNECT; use GET or POST, and leave MES out of the "
        "client's proxy settings",
        headers="Allow: GET, HEAD, OPTIONS, POST\r\n",
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
    ServiceBusy: ServerError(
        503,
        "Service Unavailable",
        "service_busy",
        "too many requests without a valid key are open, from this address or from all; close "
        "connections whose answers are not read, send a key, or try again later",
        headers="Retry-After: 2\r\n",
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
    _send(sock, refusal, json.dumps(document).encode(), request_id)


def _send(sock: socket.socket, refusal: ServerError, body: bytes, request_id: str) -> None:
    head = (
        f"HTTP/1.1 {refusal.status} {refusal.reason}\r\n{refusal.headers}"
        f"Content-Type: {MIMETYPE}\r\n"
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
