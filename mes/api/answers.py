"""Answers: JSON out."""

from __future__ import annotations

import json
from typing import Any

import orjson
from flask import Response


def answer(document: dict[str, Any], status: int = 200) -> Response:
    """The document as JSON."""
    return Response(encoded(document), status, mimetype="application/json")


def encoded(document: dict[str, Any], end: bytes = b"") -> bytes:
    """The document as it is sent."""
    try:
        return orjson.dumps(document) + end
    except TypeError:
        # A model may answer with an integer of more than 64 bits.
        return json.dumps(document).encode() + end
