"""Steps around every request: its id, its log line, header checks and security headers."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask, Response, g, request
from werkzeug.exceptions import NotImplemented as NotImplementedStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from mes.api import cors
from mes.api.host_header import install_host_check
from mes.api.services import get_services
from mes.config.settings import Settings
from mes.metrics.counters import RequestCounters

log = logging.getLogger("mes.requests")

# Other ids could put line breaks or markup into the log and into responses.
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


@dataclass(slots=True)
class RequestLog:
    """The log line of one request, while its fields are collected.

    `generations` are the fields that the metrics count for each generation of a request with
    several choices.
    """

    request_id: str
    began: float
    status: int | None = None
    code: str | None = None
    key: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    generations: list[dict[str, Any]] = field(default_factory=list)

    def add_fields(self, **fields: Any) -> None:
        """Add fields to the line; never a prompt, an answer or a key."""
        self.fields.update(fields)

    def set_outcome(self, status: int, code: str) -> None:
        """Set the outcome of a stream that failed after its response had begun with a 200."""
        self.status, self.code = status, code


def request_log() -> RequestLog:
    """Return the log line of the present request."""
    return cast(RequestLog, g.request_log)


def install_request_log(app: Flask) -> None:
    """Give each request an id, one line in the log and one count in the metrics."""
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    request_id = request.headers.get("X-Request-ID")
    if request_id is None or not _SAFE_ID.fullmatch(request_id):
        request_id = f"{random.getrandbits(96):024x}"
    g.request_log = RequestLog(request_id, time.monotonic())


def _finish(response: Response) -> Response:
    line, counters = request_log(), get_services().metrics.request_counters
    line.status = response.status_code
    route = request.url_rule.rule if request.url_rule else None
    target = {"method": request.method, "path": request.path}
    if response.is_streamed:
        # The outcome is known at the end of the stream, when Flask's context is gone.
        response.call_on_close(lambda: _write(line, target, route, counters))
    else:
        _write(line, target, route, counters)
    return response


def _write(
    line: RequestLog, target: dict[str, str], route: str | None, counters: RequestCounters
) -> None:
    fields = {
        "request_id": line.request_id,
        **target,
        "status": line.status,
        "code": line.code,
        "key": line.key,
        "ms": round((time.monotonic() - line.began) * 1000, 1),
        **line.fields,
    }
    log.info("request", extra=fields)
    # The same fields, so that log and metrics agree.
    for each in _counted(fields, line.generations):
        counters.count(each, route=route)


def _counted(fields: dict[str, Any], generations: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the fields to count: the request, and each of its generations if it has several."""
    if not generations:
        yield fields
        return
    yield {name: value for name, value in fields.items() if name != "usage"}
    for generation in generations:
        yield {**fields, "ms": None, **generation}


def install_security(app: Flask, settings: Settings) -> None:
    """Set the framework's limits, check each request and add security headers to each response."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # A path with a doubled slash is not found; by default werkzeug redirects it to another path.
    app.url_map.merge_slashes = False
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0
        )
    install_host_check(app)
    app.before_request(_refuse_other_transfer_encodings)
    app.after_request(add_common_headers)


def _refuse_other_transfer_encodings() -> None:
    # gunicorn decodes "chunked" only: of "gzip, chunked" it would pass on the compressed body.
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise NotImplementedStatus("the only supported Transfer-Encoding is chunked")


def add_common_headers(response: Response) -> Response:
    """Add the headers that all responses have, and return the response."""
    response.headers["X-Request-ID"] = request_log().request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    cors.add_cors_headers(response)
    return response
