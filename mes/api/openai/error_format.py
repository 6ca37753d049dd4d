"""Errors in OpenAI's format, made of the problem documents of the other endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import Flask

from mes.api.openai.openai_schemas import OpenAiErrorFacts, OpenAiErrorSchema
from mes.api.problems import UNKNOWN_PATHS, ErrorFormat, register_error_format
from mes.api.response_fields import Document
from mes.domain.json_pointer import pointer_steps

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", UNKNOWN_PATHS)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# Codes that have another name in OpenAI's API, which clients look for.
_CODES = {"prompt_too_long": "context_length_exceeded"}


def install_openai_errors(app: Flask) -> None:
    """Send the errors of OpenAI's endpoints, and those of unknown paths, in OpenAI's format."""
    register_error_format(app, _FORMAT, PATHS)


def to_openai_error(problem: Document) -> Document:
    """Return the problem in OpenAI's format.

    `param` is the first invalid field; `errors` has all of them, as in the problem.
    """
    status = _openai_status(problem["status"])
    mistakes = problem["errors"]
    default_type = "server_error" if status >= 500 else "invalid_request_error"
    facts = OpenAiErrorFacts.build(
        message=problem["detail"],
        type=_TYPES.get(status, default_type),
        param=_parameter(mistakes[0]["pointer"]) if mistakes else None,
        code=_openai_code(problem["code"]),
        request_id=problem["request_id"],
        errors=mistakes,
    )
    return OpenAiErrorSchema.build(error=facts)


def _openai_status(status: int) -> int:
    # OpenAI uses 400 for all invalid requests.
    return 400 if status == 422 else status


def _openai_code(code: str) -> str:
    return _CODES.get(code, code)


def _restrict_codes(codes: Sequence[str]) -> Document:
    return {"error": {"properties": {"code": {"enum": list(codes)}}}}


def _parameter(pointer: str) -> str | None:
    """Return `/messages/0/content` as `messages[0].content`, and `/a~1b` as `a/b`."""
    path = ".".join(pointer_steps(pointer))
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path) or None


_FORMAT = ErrorFormat(
    name="openai",
    schema=OpenAiErrorSchema,
    restrict_codes=_restrict_codes,
    convert=to_openai_error,
    convert_status=_openai_status,
    convert_code=_openai_code,
)
