"""The WSGI application: calls the route of a request and makes the answer of its content.

It refuses requests of web pages from elsewhere, which a browser on this machine may send.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from mes.config.settings_schema import is_loopback
from mes.embedded import request_parsing
from mes.embedded.api import CHANGES_MODELS, ROUTES, Answer, OllamaApi
from mes.embedded.api_errors import ClientLeft, ForbiddenOrigin, RuntimeFailure, TooLarge, TooSlow
from mes.embedded.client_connection import ClientConnection
from mes.embedded.generation import ResponseLine, ResponseLines
from mes.server.connection import InvalidRequest

log = logging.getLogger(__name__)
JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
LARGEST_BODY = 64 << 20
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Application:
    """Ollama's API as a WSGI application.

    `host` is the address that the server listens on.
    """

    def __init__(self, api: OllamaApi, host: str) -> None:
        self._api = api
        self._is_local = is_loopback(host)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = LARGEST_BODY
        return self._respond(request)(environ, start_response)

    def _respond(self, request: Request) -> Response:
        try:
            return self._route(request)
        except ClientLeft as exc:
            raise _disconnect() from exc
        except RuntimeFailure as exc:
            return _response(_encoded({"error": str(exc), **exc.facts}), JSON, exc.status)
        except InvalidRequest:
            raise  # the server answers it
        except Exception as exc:
            log.exception("unexpected error in a request")
            return _response(_encoded({"error": repr(exc)}), JSON, 500)

    def _route(self, request: Request) -> Response:
        check_origin(request, is_local=self._is_local)
        methods = ROUTES.get(request.path)
        if methods is None:
            return _response(b"404 page not found", TEXT, 404)
        if request.method not in methods:
            return _response(b"405 method not allowed", TEXT, 405)
        has_body = request.method in ("POST", "DELETE")
        body = request_parsing.parse_body(_read_body(request)) if has_body else {}
        client = ClientConnection(request.environ["gunicorn.socket"])
        return _answer(methods[request.method](self._api, body, client), client)


def check_origin(request: Request, *, is_local: bool) -> None:
    """Raise `ForbiddenOrigin` for a request that a web page of another site may have sent.

    A page of this machine may use the models, but no page may change the list of models. Where the
    server listens on loopback (`is_local`) and for changes, only localhost is answered, because the
    name of another site may resolve to this machine.
    """
    changes_models = request.path in CHANGES_MODELS
    origin = request.headers.get("Origin")
    if origin and (changes_models or not is_loopback(_host_in(origin))):
        allowed = "no page may change models" if changes_models else "use a page of localhost"
        raise ForbiddenOrigin(f"the origin {origin} is not allowed: {allowed}")
    host = _host_in(f"//{request.headers.get('Host') or 'localhost'}")
    if (is_local or changes_models) and not is_loopback(host):
        raise ForbiddenOrigin(f"the host {host} is not allowed: use localhost or 127.0.0.1")


def _host_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _read_body(request: Request) -> bytes:
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge as exc:
        raise TooLarge(f"the request body is larger than {LARGEST_BODY} bytes") from exc
    except ClientDisconnected as exc:
        if isinstance(exc.__context__, TimeoutError):
            raise TooSlow("the request body did not arrive in time") from exc
        raise ClientLeft from exc


def _answer(answer: Answer, client: ClientConnection) -> Response:
    if answer is None:
        return _response(b"", TEXT)
    if isinstance(answer, str):
        return _response(answer.encode(), TEXT)
    if isinstance(answer, dict):
        return _response(_encoded(answer), JSON)
    return _stream(answer, client)


def _stream(lines: ResponseLines, client: ClientConnection) -> Response:
    try:
        # Only before the first line can a failure still set the status.
        first = next(lines)
    except BaseException:
        lines.close()
        raise
    client.begin_stream()
    response = Response(_encoded_lines(chain([first], lines)), content_type=NDJSON)
    # Stops the engine, also when the client leaves.
    response.call_on_close(lines.close)
    return response


def _encoded_lines(lines: Iterator[ResponseLine]) -> Iterator[bytes]:
    try:
        for line in lines:
            yield _encoded(line) + b"\n"
    except RuntimeFailure as exc:
        # After the headers are sent, a failure is reported as a line of the answer.
        yield _encoded({"error": str(exc)}) + b"\n"
    except ClientLeft as exc:
        raise _disconnect() from exc


def _response(data: bytes, content_type: str, status: int = 200) -> Response:
    return Response(data, status, content_type=content_type)


def _disconnect() -> OSError:
    """Return the error at which the server closes the connection without an answer."""
    return BrokenPipeError(errno.EPIPE, "the client has left")


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
