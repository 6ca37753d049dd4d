"""What belongs to each request: its id, and its one line in the log and in the metrics."""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask, Response, g, request

from mes.api.services import services
from mes.metrics.counters import RequestCounters

log = logging.getLogger("mes.requests")

_HARMLESS_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


@dataclass(slots=True)
class RequestLog:
    """What the log will say of the present request."""

    request_id: str
    began: float
    status: int | None = None
    code: str | None = None
    key: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def note(self, **facts: Any) -> None:
        """Facts worth a place in the log: never a prompt, an answer or a key."""
        self.facts.update(facts)

    def set_outcome(self, status: int, code: str) -> None:
        """How a stream has ended that went so well at first that its answer is a 200."""
        self.status, self.code = status, code


def request_log() -> RequestLog:
    """The line of the present request."""
    return cast(RequestLog, g.line)


def install_request_log(app: Flask) -> None:
    """Number the requests of the application; log and count each of them once."""
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    given = request.headers.get("X-Request-ID")
    if given is None or not _HARMLESS_ID.fullmatch(given):
        given = f"{random.getrandbits(96):024x}"
    g.line = RequestLog(given, time.monotonic())


def _finish(response: Response) -> Response:
    own, request_counters = request_log(), services().metrics.request_counters
    response.headers["X-Request-ID"] = own.request_id
    own.status = response.status_code
    rule = request.url_rule
    route = rule.rule if rule else None
    asked = {"method": request.method, "path": request.path}
    if response.is_streamed:
        # What came of it is known at its end, when nothing of Flask's is left.
        response.call_on_close(lambda: _write(own, asked, route, request_counters))
    else:
        _write(own, asked, route, request_counters)
    return response


def _write(
    own: RequestLog, asked: dict[str, str], route: str | None, request_counters: RequestCounters
) -> None:
    facts = {
        "request_id": own.request_id,
        **asked,
        "status": own.status,
        "code": own.code,
        "key": own.key,
        "ms": round((time.monotonic() - own.began) * 1000, 1),
        **own.facts,
    }
    log.info("request", extra=facts)
    # The same facts, so that the two never disagree.
    request_counters.count(facts, route=route)
