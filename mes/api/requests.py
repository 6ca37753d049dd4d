"""What belongs to each request: its id, and its one line in the log."""

from __future__ import annotations

import logging
import random
import re
import time
from typing import Any

from flask import Flask, Response, g, request

log = logging.getLogger("mes.requests")

_HARMLESS_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def install(app: Flask) -> None:
    """Number the requests of the application and log each of them once."""
    app.before_request(_begin)
    app.after_request(_finish)


def note(**facts: Any) -> None:
    """Facts for the request's line in the log: never a prompt, an answer or a key."""
    g.facts.update(facts)


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _HARMLESS_ID.fullmatch(given) else f"{random.getrandbits(96):024x}"
    g.began = time.monotonic()
    g.facts = {}
    g.code = None


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    log.info("request", extra=_line(response))
    return response


def _line(response: Response) -> dict[str, Any]:
    return {
        "request_id": g.request_id,
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "code": g.code,
        "key": g.get("flask_httpauth_user"),
        "ms": round((time.monotonic() - g.began) * 1000, 1),
        **g.facts,
    }
