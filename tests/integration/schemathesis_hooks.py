"""What schemathesis cannot know of the service by itself."""

from __future__ import annotations

import itertools
import json
from typing import Any

import schemathesis

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Each request comes from elsewhere, or the wrong keys among them would be limited."""
    high, low = divmod(next(_numbers), 256)
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"10.0.{high}.{low}"}


@schemathesis.deserializer("application/x-ndjson")
def lines(context: Any, response: Any) -> Any:
    """All lines, as the items of an array."""
    return [json.loads(line) for line in response.content.splitlines()]
