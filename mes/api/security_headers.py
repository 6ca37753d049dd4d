"""Checks of all requests before routing, and security headers of all responses."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest
from werkzeug.exceptions import NotImplemented as NotImplementedStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from mes.config.settings import Settings


def install_security(app: Flask, settings: Settings) -> None:
    """Set the framework's limits, and check each request and protect each response."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # A path with a doubled slash is not found; by default werkzeug redirects it to another path.
    app.url_map.merge_slashes = False
    if settings.allowed_hosts:
        app.config["TRUSTED_HOSTS"] = [*settings.allowed_hosts, "localhost", "127.0.0.1"]
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0
        )
    app.before_request(_require_host)
    app.before_request(_refuse_other_transfer_encodings)
    app.after_request(_add_security_headers)


def _require_host() -> None:
    # HTTP/1.0 requests may lack one; werkzeug then takes the address of the server.
    is_missing = "Host" not in request.headers and request.environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    if is_missing or not request.host:
        raise BadRequest("the Host header is missing or is not a host name and a port")


def _refuse_other_transfer_encodings() -> None:
    # gunicorn decodes "chunked" only: of "gzip, chunked" it would pass on the compressed body.
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise NotImplementedStatus("the only supported Transfer-Encoding is chunked")


def _add_security_headers(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response
