"""The HTTP server: reads a request, calls its route and writes the answer.

It refuses requests of web pages from elsewhere, which a browser on this machine may send.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from mes.embedded import request_parsing
from mes.embedded.api import ROUTES, Answer, OllamaApi, Route
from mes.embedded.api_errors import (
    BadRequest,
    ClientLeft,
    ForbiddenOrigin,
    RuntimeFailure,
    TooLarge,
)
from mes.embedded.client_connection import ClientConnection
from mes.embedded.generation import ResponseLine, ResponseLines

log = logging.getLogger(__name__)
JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
LARGEST_BODY = 64 << 20
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: OllamaApi) -> None:
        self.api = api
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # The inherited method looks up the host's name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection of %s failed", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        """Answer one request of any method."""
        try:
            self._route()
        except (ClientLeft, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except RuntimeFailure as exc:
            self._send(exc.status, JSON, _encoded({"error": str(exc), **exc.facts}))
        except Exception as exc:
            log.exception("unexpected error in a request")
            self._send(500, JSON, _encoded({"error": repr(exc)}))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _route(self) -> None:
        raw = self._read_body()
        check_origin(self.headers, str(self.server.server_address[0]))
        methods = ROUTES.get(urlsplit(self.path).path)
        if methods is None:
            self._send(404, TEXT, b"404 page not found")
        elif self.command not in methods:
            self._send(405, TEXT, b"405 method not allowed")
        else:
            self._answer(self._call(methods[self.command], raw))

    def _read_body(self) -> bytes:
        try:
            return read_body(self.headers, self.rfile)
        except RuntimeFailure:
            # The start of the next request is unknown.
            self.close_connection = True
            raise

    def _call(self, route: Route, raw: bytes) -> Answer:
        has_body = self.command in ("POST", "DELETE")
        body = request_parsing.parse_body(raw) if has_body else {}
        return route(self.server.api, body, ClientConnection(self.connection))

    def _answer(self, answer: Answer) -> None:
        if answer is None:
            self._send(200, "", b"")
        elif isinstance(answer, str):
            self._send(200, TEXT, answer.encode())
        elif isinstance(answer, dict):
            self._send(200, JSON, _encoded(answer))
        else:
            self._stream(answer)

    def _stream(self, lines: ResponseLines) -> None:
        # Closing the lines stops the engine, also when the client leaves.
        with closing(lines):
            # Only before the first line can a failure still set the status.
            first = next(lines)
            self.wfile.write(self._head(200, NDJSON, "Transfer-Encoding: chunked"))
            for line in _with_failure(chain([first], lines)):
                data = _encoded(line) + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, content_type: str, data: bytes) -> None:
        head = self._head(status, content_type, f"Content-Length: {len(data)}")
        self.wfile.write(head if self.command == "HEAD" else head + data)

    def _head(self, status: int, content_type: str, *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *headers]
        lines += [f"Content-Type: {content_type}"] if content_type else []
        lines += ["Connection: close"] if self.close_connection else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read_body(headers: Message, file: BufferedIOBase) -> bytes:
    """Return the whole body of a request.

    Raise `TooLarge` beyond `LARGEST_BODY` bytes, `BadRequest` for an invalid length or chunk.
    """
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return _read_chunks(file)
    length = headers.get("Content-Length") or "0"
    if not length.isdecimal():
        raise BadRequest("invalid Content-Length")
    return file.read(_check_size(int(length)))


def check_origin(headers: Message, address: str) -> None:
    """Raise `ForbiddenOrigin` for a web page of another site.

    A server that listens on a loopback `address` also refuses all hosts but localhost, because the
    name of another site may resolve to this machine.
    """
    origin = headers.get("Origin")
    if origin and not _is_local(urlsplit(origin).hostname):
        raise ForbiddenOrigin(f"the origin {origin} is not allowed: use a page of this machine")
    if ipaddress.ip_address(address).is_loopback:
        host = urlsplit(f"//{headers.get('Host') or 'localhost'}").hostname or ""
        if not _is_loopback(host):
            raise ForbiddenOrigin(f"the host {host} is not allowed: use localhost or 127.0.0.1")


def _read_chunks(file: BufferedIOBase) -> bytes:
    body = b""
    while size := _chunk_size(file.readline(64)):
        body += file.read(_check_size(size, len(body)))
        file.readline(64)
    while file.readline(1024).strip():
        pass  # trailers
    return body


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError as exc:
        raise BadRequest("invalid chunk") from exc


def _check_size(size: int, already_read: int = 0) -> int:
    if size + already_read > LARGEST_BODY:
        raise TooLarge("http: request body too large")
    return size


def _with_failure(lines: Iterator[ResponseLine]) -> Iterator[ResponseLine]:
    # After the headers are sent, a failure is reported as a line of the answer.
    try:
        yield from lines
    except RuntimeFailure as exc:
        yield {"error": str(exc)}


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_local(name: str | None) -> bool:
    if not name:
        return False
    if name in ("localhost", socket.gethostname().lower()) or name.endswith(LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_private or address.is_unspecified
