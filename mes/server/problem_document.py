"""The problem document (RFC 9457), the body of every error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MIMETYPE = "application/problem+json"


def problem_document(
    status: int, code: str, detail: str, *, request_id: str, errors: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """Return the problem document of an error.

    Args:
        errors: mistakes of the request, each `{"pointer": ..., "detail": ...}`.

    `success` and `error` serve clients of the original interface.
    """
    return {
        "type": f"urn:mes:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": list(errors),
        "success": False,
        "error": detail,
    }
