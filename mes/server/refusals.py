"""What the server refuses by itself, before there is a request for a door, as problem documents."""

from __future__ import annotations

import json
import logging
import random
import socket
from dataclasses import dataclass

from gunicorn.http import errors

from mes.server import problem_document
from mes.server.reader import TooSlow

log = logging.getLogger("mes.requests")


@dataclass(frozen=True)
class _Kind:
    status: int
    reason: str
    code: str
    detail: str


KINDS: dict[type[Exception], _Kind] = {
    TooSlow: _Kind(408, "Request Timeout", "request_timeout", "the request did not arrive in time"),
    errors.LimitRequestLine: _Kind(
        414, "URI Too Long", "uri_too_long", "the request line is too long; shorten the path"
    ),
    errors.ExpectationFailed: _Kind(
        417, "Expectation Failed", "expectation_failed", "only Expect: 100-continue can be met"
    ),
    errors.LimitRequestHeaders: _Kind(
        431,
        "Request Header Fields Too Large",
        "headers_too_large",
        "the headers are too many or too long",
    ),
    errors.UnsupportedTransferCoding: _Kind(
        501, "Not Implemented", "not_implemented", "only Transfer-Encoding: chunked is known"
    ),
    errors.ParseException: _Kind(
        400, "Bad Request", "malformed_request", "this is not a request of HTTP/1.1"
    ),
    Exception: _Kind(
        500,
        "Internal Server Error",
        "internal_error",
        "an error of the service; see its log",
    ),
}


def refuse(sock: socket.socket, error: Exception) -> None:
    """Answer what is no request, note it in the log, and leave the closing to others."""
    kind = next(KINDS[each] for each in type(error).__mro__ if each in KINDS)
    request_id = f"{random.getrandbits(96):024x}"
    told = {"request_id": request_id, "status": kind.status, "code": kind.code}
    if kind.status == 500:
        log.error("internal_error", exc_info=error, extra=told)
    else:
        # Not the words of the error, which quote what was sent: that may be a key.
        log.info("request", extra={**told, "reason": type(error).__name__})
    document = problem_document.problem_document(
        kind.status, kind.code, kind.detail, request_id=request_id
    )
    _send(sock, f"HTTP/1.1 {kind.status} {kind.reason}", json.dumps(document).encode(), request_id)


def _send(sock: socket.socket, first_line: str, body: bytes, request_id: str) -> None:
    head = (
        f"{first_line}\r\nContent-Type: {problem_document.MIMETYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: close\r\nX-Request-ID: {request_id}\r\n"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
    )
    try:
        # Nobody waits for a client that does not read.
        sock.setblocking(False)
        sock.send(head.encode() + body)
    except OSError:
        pass  # it has gone
