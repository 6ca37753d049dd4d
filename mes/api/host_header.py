"""The Host header: which names of the service are answered.

A web page can have its own name resolve to this machine (DNS rebinding). The browser then treats
the service as part of the page's site, and only the Host header shows that it is not.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, request
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.sansio.utils import host_is_trusted

from mes.api.services import get_services
from mes.config.settings_schema import is_loopback

_MAX_QUOTED_LENGTH = 200


class MisdirectedRequest(HTTPException):
    """The request is for a host that this service does not answer for (RFC 9110, 15.5.20)."""

    code = 421


def install_host_check(app: Flask) -> None:
    """Refuse requests without a valid Host header, and those for other hosts."""
    app.before_request(_require_host)
    app.before_request(_require_allowed_host)


def _require_host() -> None:
    # HTTP/1.0 requests may lack one; werkzeug then takes the address of the server.
    is_missing = "Host" not in request.headers and request.environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    if is_missing or not request.host:
        raise BadRequest("the Host header is missing or is not a host name and a port")


def _require_allowed_host() -> None:
    if "Host" not in request.headers or get_services().settings.accepts_any_host:
        return
    name = urlsplit(f"//{request.host}").hostname or ""
    if not _is_allowed(name):
        quoted = name[:_MAX_QUOTED_LENGTH]
        raise MisdirectedRequest(
            f"the host {quoted} in the Host header is not allowed; use localhost or 127.0.0.1, "
            f"or ask the operator to add {quoted} to ALLOWED_HOSTS"
        )


def _is_allowed(name: str) -> bool:
    allowed = get_services().settings.allowed_hosts
    return is_loopback(name) or bool(allowed and host_is_trusted(name, allowed))
