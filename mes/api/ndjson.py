"""NDJSON: streamed answers of which each line is a JSON document."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

from flask import Response

from mes.api.answers import encoded
from mes.api.delivery import Documents, deliver
from mes.api.promises import NDJSON


def stream(batches: Generator[Documents]) -> Response:
    """The documents as lines; see `deliver`."""
    return deliver(batches, framed=partial(encoded, end=b"\n"), mimetype=NDJSON)
