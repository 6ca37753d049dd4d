"""Answers: JSON out."""

from __future__ import annotations

import json
from typing import Any

import orjson
from flask import Response


def answer(document: dict[str, Any], status: int = 200) -> Response:
    """The document as JSON."""
    return Response(_encode(document), status, mimetype="application/json")


def _encode(document: dict[str, Any]) -> bytes | str:
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document)  # a model may answer with an integer of more than 64 bits
