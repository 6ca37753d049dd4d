"""The HTTP server: reads a request, calls its route, writes the answer in Ollama's manner."""

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
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from mes.embedded import request_parsing
from mes.embedded.api import ROUTES, Answer, Call, Lines, OllamaApi
from mes.embedded.api_errors import ClientLeft, ForbiddenOrigin, RuntimeFailure
from mes.embedded.slots import ClientConnection

log = logging.getLogger(__name__)
JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: OllamaApi) -> None:
        self.api = api
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # The inherited one asks the name service who we are, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("the connection of %s broke", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        try:
            self._route()
        except (ClientLeft, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except RuntimeFailure as exc:
            self._send(exc.status, JSON, _encoded({"error": str(exc), **exc.facts}))
        except Exception as exc:
            log.exception("a mistake of the runtime itself")
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
            self._answer(self._called(methods[self.command], raw))

    def _read_body(self) -> bytes:
        try:
            return request_parsing.read_body(self.headers, self.rfile)
        except RuntimeFailure:
            # Nobody knows where the next request begins.
            self.close_connection = True
            raise

    def _called(self, call: Call, raw: bytes) -> Answer:
        reads = self.command in ("POST", "DELETE")
        return call(
            self.server.api,
            request_parsing.parse_body(raw) if reads else {},
            ClientConnection(self.connection),
        )

    def _answer(self, answer: Answer) -> None:
        if answer is None:
            self._send(200, "", b"")
        elif isinstance(answer, str):
            self._send(200, TEXT, answer.encode())
        elif isinstance(answer, dict):
            self._send(200, JSON, _encoded(answer))
        else:
            self._stream(answer)

    def _stream(self, lines: Lines) -> None:
        # Closing the lines ends the work behind them, however this block is left.
        with closing(lines):
            # A failure before the first line still has a status of its own.
            first = next(lines)
            self.wfile.write(self._head(200, NDJSON, "Transfer-Encoding: chunked"))
            for line in _with_failures(chain([first], lines)):
                data = _encoded(line) + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, kind: str, data: bytes) -> None:
        head = self._head(status, kind, f"Content-Length: {len(data)}")
        self.wfile.write(head if self.command == "HEAD" else head + data)

    def _head(self, status: int, kind: str, *more: str) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *more]
        lines += [f"Content-Type: {kind}"] if kind else []
        lines += ["Connection: close"] if self.close_connection else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _with_failures(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What goes wrong after the headers are sent can only be said in a line"""
    try:
        yield from lines
    except RuntimeFailure as exc:
        yield {"error": str(exc)}


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# Guard against web pages that reach for this server through somebody's browser.

LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def check_origin(headers: Message, bound_to: str) -> None:
    """Forbidden for a page of another site, and for a foreign name that leads to this machine"""
    origin = headers.get("Origin")
    if origin and not _is_local(urlsplit(origin).hostname):
        raise ForbiddenOrigin("this origin is not allowed")
    if ipaddress.ip_address(bound_to).is_loopback and not _is_local(_host_of(headers)):
        raise ForbiddenOrigin("this host name is not allowed")


def _host_of(headers: Message) -> str:
    return urlsplit(f"//{headers.get('Host') or 'localhost'}").hostname or ""


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
