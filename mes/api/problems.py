"""Problems: every error as `application/problem+json` (RFC 9457), and the one table of statuses."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mes import errors
from mes.api.openai import error_format as openai
from mes.api.request_log import RequestLog, request_log
from mes.api.serializers import json_response
from mes.errors import MesError
from mes.server import problem_document as rfc9457

log = logging.getLogger(__name__)

STATUSES: dict[type[MesError], int] = {
    errors.MalformedRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.ModelNotPulled: 404,
    errors.NotWaiting: 404,
    errors.ModelBusy: 409,
    errors.RequestInvalid: 422,
    errors.RateLimited: 429,
    errors.ClientDisconnected: 499,
    errors.RuntimeFault: 502,
    errors.TryLater: 503,
    errors.TimedOut: 504,
    errors.MesError: 500,
}

# What the web framework refuses by itself; the names are those of RFC 9110.
_CODES = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "content_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    501: "not_implemented",
}


def status_for(error: MesError) -> int:
    """The HTTP status that tells of this error: that of its nearest kind."""
    return _status_of(type(error))


def status_and_code(kind: type[Exception]) -> tuple[int, str]:
    """The status and the code that tell of this kind of error, of ours or of the framework."""
    if issubclass(kind, MesError):
        return _status_of(kind), kind.code
    status = getattr(kind, "code", None) or 500
    return status, _code_of(status)


def _status_of(kind: type[MesError]) -> int:
    return next(STATUSES[each] for each in kind.__mro__ if each in STATUSES)


def _code_of(status: int) -> str:
    return _CODES.get(status, "internal_error" if status >= 500 else "malformed_request")


def install_error_handlers(app: Flask) -> None:
    """Render whatever goes wrong behind a door."""
    app.register_error_handler(MesError, _render_ours)
    app.register_error_handler(HTTPException, _render_http)
    app.register_error_handler(Exception, _render_bug)


def _render_ours(error: MesError) -> Response:
    status = status_for(error)
    if status == 500:
        return _render_bug(error)
    response = _rendered(problem_for(error, request_log().request_id))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="MES"'
    return response


def _render_http(error: HTTPException) -> Response:
    status = error.code or 500
    response = problem_response(status, _code_of(status), error.description or error.name)
    if status == 405:
        response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
    return response


def _render_bug(error: Exception) -> Response:
    return _rendered(_bug(error, request_log().request_id))


def _described(error: Exception, request_id: str) -> dict[str, Any]:
    if isinstance(error, MesError) and status_for(error) != 500:
        return problem_for(error, request_id)
    return _bug(error, request_id)


def _bug(error: Exception, request_id: str) -> dict[str, Any]:
    # The caller gets the request id and nothing else: a traceback is for the log.
    log.error("internal_error", exc_info=error, extra={"request_id": request_id})
    detail = f"an error of the service itself; its log tells more under {request_id}"
    return rfc9457.problem_document(500, "internal_error", detail, request_id=request_id)


def problem_response(status: int, code: str, detail: str) -> Response:
    """A problem that is none of our errors."""
    return _rendered(
        rfc9457.problem_document(status, code, detail, request_id=request_log().request_id)
    )


def problem_for(error: MesError, request_id: str) -> dict[str, Any]:
    """The problem document of an error."""
    mistakes = [{"pointer": m.pointer, "detail": m.detail} for m in error.mistakes]
    return rfc9457.problem_document(
        status_for(error), error.code, error.detail, request_id=request_id, errors=mistakes
    )


def problem_at_end_of_stream(error: Exception, own: RequestLog) -> dict[str, Any]:
    """The problem with which a stream breaks off."""
    problem = _described(error, own.request_id)
    own.set_outcome(problem["status"], problem["code"])
    return problem


def _rendered(document: dict[str, Any]) -> Response:
    request_log().code = document["code"]
    if request.path in openai.OPENAI_PATHS:
        return json_response(
            openai.to_openai_error(document), openai.openai_status(document["status"])
        )
    return Response(json.dumps(document), document["status"], mimetype=rfc9457.MIMETYPE)
