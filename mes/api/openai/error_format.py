"""Errors in OpenAI's format, made of the problem documents of the other endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import Flask

from mes.api.openai.openai_schemas import OpenAiErrorFacts, OpenAiErrorSchema
from mes.api.problems import ErrorFormat, register_error_format
from mes.api.response_fields import Document

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# Fields of an inference request that have another name in OpenAI's requests.
_FIELD_NAMES = {
    "model_id": "model",
    "think": "reasoning_effort",
}


def install_openai_errors(app: Flask) -> None:
    """Send the errors of OpenAI's endpoints in OpenAI's format."""
    register_error_format(app, _FORMAT, PATHS)


def to_openai_error(problem: Document) -> Document:
    """Return the problem in OpenAI's format.

    `param` is the first invalid field; `errors` has all of them, as in the problem.
    """
    status = _openai_status(problem["status"])
    mistakes = [{**each, "pointer": _pointer(each["pointer"])} for each in problem["errors"]]
    default_type = "server_error" if status >= 500 else "invalid_request_error"
    facts = OpenAiErrorFacts.build(
        message=problem["detail"],
        type=_TYPES.get(status, default_type),
        param=_parameter(mistakes[0]["pointer"]) if mistakes else None,
        code=problem["code"],
        request_id=problem["request_id"],
        errors=mistakes,
    )
    return OpenAiErrorSchema.build(error=facts)


def _openai_status(status: int) -> int:
    # OpenAI uses 400 for all invalid requests.
    return 400 if status == 422 else status


def _restrict_codes(codes: Sequence[str]) -> Document:
    return {"error": {"properties": {"code": {"enum": list(codes)}}}}


def _pointer(pointer: str) -> str:
    """Return the pointer with the field name that the client sent."""
    head, slash, steps = pointer.removeprefix("/").partition("/")
    return f"/{_FIELD_NAMES.get(head, head)}{slash}{steps}" if head else pointer


def _parameter(pointer: str) -> str | None:
    """Return `/messages/0/content` as `messages[0].content`."""
    path = pointer.removeprefix("/").replace("/", ".")
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path) or None


_FORMAT = ErrorFormat(
    name="openai",
    schema=OpenAiErrorSchema,
    restrict_codes=_restrict_codes,
    convert=to_openai_error,
    convert_status=_openai_status,
)
