"""Error responses: problem documents (RFC 9457), the table of statuses, and other error formats."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from mes import errors
from mes.api.middleware import RequestLog, request_log
from mes.api.response_fields import Document, ResponseSchema, json_response
from mes.api.response_schemas import MistakeSchema
from mes.errors import MesError
from mes.server import connection as rfc9457

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

# Codes for the errors of the web framework, after the status names of RFC 9110.
_CODES = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "content_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    421: "misdirected_request",
    501: "not_implemented",
}

_MAX_PATH_LENGTH = 200
# Ollama's own paths, and the paths of MES that clients of Ollama look for.
OLLAMA_PATHS = {
    "/api/chat": "/v1/chat/completions",
    "/api/generate": "/v1/inference",
    "/api/embed": "/v1/embeddings",
    "/api/embeddings": "/v1/embeddings",
    "/api/tags": "/v1/models",
    "/api/show": "/v1/models/{model_id}",
    "/api/pull": "/v1/models/{model_id}/pull",
    "/api/ps": "/v1/status",
    "/api/version": "/health",
}
_SIMILARITY = 0.8  # of a misspelt path; another endpoint of OpenAI's API is less similar
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")

# Errors of the client that may be over when the request is sent again.
_REPEATABLE = (408, 409, 429)

# Statuses and codes.


def status_for(error: MesError) -> int:
    """Return the HTTP status of the error: that of its nearest class in `STATUSES`."""
    return _status_of(type(error))


def status_and_code(kind: type[Exception]) -> tuple[int, str]:
    """Return the status and the code of a class of errors, MES's own or the framework's."""
    if issubclass(kind, MesError):
        return _status_of(kind), kind.code
    status = getattr(kind, "code", None) or 500
    return status, _code_of(status)


def _status_of(kind: type[MesError]) -> int:
    return next(STATUSES[each] for each in kind.__mro__ if each in STATUSES)


def _is_useless_to_repeat(status: int, code: str) -> bool:
    """Return whether the same request would fail again, or only use up its time again."""
    is_mistake = 400 <= status < 500 and status not in _REPEATABLE
    return is_mistake or status == 501 or code == errors.GenerationTimeout.code


def _code_of(status: int) -> str:
    return _CODES.get(status, "internal_error" if status >= 500 else "malformed_request")


# Error formats: paths whose clients expect errors in another form than a problem document.


@dataclass(frozen=True)
class ErrorFormat:
    """A form of error responses, made of problem documents.

    Args:
        name: prefix of the format's components in /openapi.json.
        schema: the schema of an error.
        restrict_codes: returns the JSON Schema that limits an error to some codes.
        convert: returns the error for a problem document.
        convert_status: returns the status for that of a problem.
        convert_code: returns the code for that of a problem.
    """

    name: str
    schema: type[ResponseSchema]
    restrict_codes: Callable[[Sequence[str]], Document]
    convert: Callable[[Document], Document]
    convert_status: Callable[[int], int]
    convert_code: Callable[[str], str]


UNKNOWN_PATHS = "unknown paths of the API"


def register_error_format(app: Flask, error_format: ErrorFormat, paths: Iterable[str]) -> None:
    """Use the format for the errors of these paths, one of which may be `UNKNOWN_PATHS`."""
    _error_formats(app).update(dict.fromkeys(paths, error_format))


def error_format_for(app: Flask, path: str) -> ErrorFormat | None:
    """Return the error format of the path; None for problem documents."""
    return _error_formats(app).get(path)


def _requested_format() -> ErrorFormat | None:
    """Return the error format for the present request."""
    is_unknown = isinstance(request.routing_exception, NotFound)
    path = UNKNOWN_PATHS if is_unknown and _is_of_api(request.path) else request.path
    return error_format_for(current_app, path)


def _error_formats(app: Flask) -> dict[str, ErrorFormat]:
    formats: dict[str, ErrorFormat] = app.extensions.setdefault("mes.error_formats", {})
    return formats


# Paths that do not exist.


def _routing_detail(error: HTTPException) -> str | None:
    """Return the detail for an unknown path or a wrong method; None for other errors."""
    if error is not request.routing_exception:
        return None
    path = request.path[:_MAX_PATH_LENGTH]
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return f"{path} takes {allowed}, and not {request.method}"
    return _unknown_path_detail(path) if isinstance(error, NotFound) else None


def _unknown_path_detail(path: str) -> str:
    if f"{path}/".startswith("/api/") and not _is_of_api(path.removeprefix("/api")):
        return _ollama_path_detail(path)
    rules = {_PARAMETER.sub(r"{\1}", rule.rule) for rule in current_app.url_map.iter_rules()}
    close = get_close_matches(path, rules, n=1, cutoff=_SIMILARITY)
    parts = [f"did you mean {close[0]}?"] if close else []
    if _is_of_api(path):
        parts += ["the paths are", ", ".join(sorted(filter(_is_of_api, rules)))]
    else:
        parts.append("/docs lists the paths")
    return " ".join([f"there is no {path};", *parts])


def _ollama_path_detail(path: str) -> str:
    instead = OLLAMA_PATHS.get(path.rstrip("/"))
    remedy = f"use {instead}, or OpenAI's API with the base URL /v1" if instead else "see /docs"
    return f"there is no {path}; MES does not serve Ollama's API; {remedy}"


def _is_of_api(path: str) -> bool:
    return f"{path}/".startswith("/v1/")


# Rendering.


def install_error_handlers(app: Flask) -> None:
    """Render all errors of the application."""
    app.register_error_handler(MesError, _render_mes_error)
    app.register_error_handler(HTTPException, _render_http_exception)
    app.register_error_handler(Exception, _render_unexpected)


def problem_for(error: MesError, request_id: str) -> Document:
    """Return the problem document of the error."""
    return rfc9457.problem_document(
        status_for(error),
        error.code,
        error.detail,
        request_id=request_id,
        errors=[MistakeSchema.serialize(mistake) for mistake in error.mistakes],
    )


def problem_at_end_of_stream(error: Exception, line: RequestLog) -> Document:
    """Return the problem document that ends a stream, and log it as the stream's outcome."""
    if isinstance(error, MesError) and status_for(error) != 500:
        problem = problem_for(error, line.request_id)
    else:
        problem = _unexpected_problem(error, line.request_id)
    line.set_outcome(problem["status"], problem["code"])
    return problem


def _render_mes_error(error: MesError) -> Response:
    status = status_for(error)
    if status == 500:
        return _render_unexpected(error)
    response = _render(problem_for(error, request_log().request_id))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="MES"'
    return response


def _render_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    request_id = request_log().request_id
    detail = _routing_detail(error) or error.description or error.name
    response = _render(
        rfc9457.problem_document(status, _code_of(status), detail, request_id=request_id)
    )
    if status == 405:
        response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
    return response


def _render_unexpected(error: Exception) -> Response:
    return _render(_unexpected_problem(error, request_log().request_id))


def _unexpected_problem(error: Exception, request_id: str) -> Document:
    # The response has the request id only; the traceback is for the log.
    log.error("internal_error", exc_info=error, extra={"request_id": request_id})
    detail = f"internal error of MES; its log has the traceback under the request id {request_id}"
    return rfc9457.problem_document(500, "internal_error", detail, request_id=request_id)


def _render(problem: dict[str, Any]) -> Response:
    request_log().code = problem["code"]
    error_format = _requested_format()
    if error_format is not None:
        status = error_format.convert_status(problem["status"])
        response = json_response(error_format.convert(problem), status)
    else:
        response = Response(json.dumps(problem), problem["status"], mimetype=rfc9457.MIMETYPE)
    if _is_useless_to_repeat(problem["status"], problem["code"]):
        response.headers["X-Should-Retry"] = "false"  # OpenAI's libraries look for it
    return response
