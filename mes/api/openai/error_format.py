"""Errors as OpenAI's clients know them, made of the problems that all other clients get."""

from __future__ import annotations

import re
from typing import Any

OPENAI_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# Where a request for an inference says what OpenAI's says elsewhere.
_PLACES = {
    "model_id": "model",
    "think": "reasoning_effort",
}


def openai_status(status: int) -> int:
    """That of the problem; but OpenAI has 400 for all that is wrong with a request."""
    return 400 if status == 422 else status


def to_openai_error(problem: dict[str, Any]) -> dict[str, Any]:
    """`param` is the first field that is wrong; all of them are in `errors`, as in a problem."""
    status = openai_status(problem["status"])
    mistakes = [{**each, "pointer": _pointer(each["pointer"])} for each in problem["errors"]]
    usual = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": problem["detail"],
            "type": _TYPES.get(status, usual),
            "param": _parameter(mistakes[0]["pointer"]) if mistakes else None,
            "code": problem["code"],
            "request_id": problem["request_id"],
            "errors": mistakes,
        }
    }


def _pointer(pointer: str) -> str:
    """Into what the client has sent."""
    head, slash, steps = pointer.removeprefix("/").partition("/")
    return f"/{_PLACES.get(head, head)}{slash}{steps}" if head else pointer


def _parameter(pointer: str) -> str | None:
    """`/messages/0/content` as `messages[0].content`."""
    path = pointer.removeprefix("/").replace("/", ".")
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path) or None
