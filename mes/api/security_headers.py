"""Hygiene: what every request must be, and every answer carries, whichever door it is."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest
from werkzeug.exceptions import NotImplemented as NotKnown
from werkzeug.middleware.proxy_fix import ProxyFix

from mes.config.settings import Settings


def install_security(app: Flask, settings: Settings) -> None:
    """Set the limits of the framework, and look at each request before its door does."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # A doubled slash is a mistake and not another name of the same thing, to be redirected to.
    app.url_map.merge_slashes = False
    if settings.allowed_hosts:
        app.config["TRUSTED_HOSTS"] = [*settings.allowed_hosts, "localhost", "127.0.0.1"]
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0
        )
    app.before_request(_refuse_without_host)
    app.before_request(_refuse_compressed)
    app.after_request(_protect)


def _refuse_without_host() -> None:
    # Of HTTP/1.0, which need not have one, the framework takes our own address.
    missing = "Host" not in request.headers and request.environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    if missing or not request.host:
        raise BadRequest("the Host header is missing or is not a host name and a port")


def _refuse_compressed() -> None:
    # The server takes off "chunked" alone, and leaves "gzip, chunked" half undone.
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise NotKnown("only 'Transfer-Encoding: chunked' is known")


def _protect(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response
