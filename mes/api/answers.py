"""Answers: JSON out."""

from __future__ import annotations

import json
from typing import Any

from flask import Response


def answer(document: dict[str, Any], status: int = 200) -> Response:
    """The document as JSON."""
    return Response(json.dumps(document), status, mimetype="application/json")
