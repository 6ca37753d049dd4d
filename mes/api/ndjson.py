"""NDJSON: streamed answers of which each line is a JSON document."""

from __future__ import annotations

from collections.abc import Generator

from flask import Response

from mes.api.answers import encoded
from mes.api.delivery import Document, Documents, deliver
from mes.api.promises import NDJSON


def stream(batches: Generator[Documents]) -> Response:
    """The documents as lines; see `deliver`."""
    return deliver(batches, framed=_line, mimetype=NDJSON)


def _line(document: Document) -> bytes:
    return encoded(document) + b"\n"
