"""Cross-origin requests (CORS): web pages of the origins in CORS_ORIGINS may call the service."""

from __future__ import annotations

import re

from flask import Flask, Response, request

from mes.api.services import get_services

_METHODS = "GET, POST"
_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID")
_EXPOSED = "X-Request-ID, Retry-After, X-Should-Retry"
# Browsers keep the answer to a preflight for two hours at most.
_MAX_AGE_SECONDS = "7200"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def install_cors(app: Flask) -> None:
    """Answer preflights, which browsers send without a key."""
    app.before_request(_answer_preflight)


def add_cors_headers(response: Response) -> None:
    """Allow the web page that has sent the present request to read the response.

    Credentials are not allowed: a key is a header that the page sets, and not a cookie.
    """
    origins = get_services().settings.cors_origins
    if not origins:
        return
    response.vary.add("Origin")
    if request.headers.get("Origin") in origins:
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED


def _answer_preflight() -> Response | None:
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    if request.headers.get("Origin") not in get_services().settings.cors_origins:
        return None
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    response.headers["Access-Control-Max-Age"] = _MAX_AGE_SECONDS
    # SDKs add headers of their own, which MES ignores: all that the page asks for are allowed.
    names = _HEADER_NAMES.findall(request.headers.get("Access-Control-Request-Headers", ""))
    response.headers["Access-Control-Allow-Headers"] = ", ".join([*_HEADERS, *names])
    response.vary.add("Access-Control-Request-Headers")
    return response
