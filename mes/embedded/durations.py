"""Timestamps and durations in Ollama's notation."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from mes.embedded.api_errors import BadRequest

FOREVER = math.inf
# Ollama's date for a model that never expires: the longest duration of Go.
FOREVER_SECONDS = 292 * 365 * 86400
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
NUMBER = r"(?:\d+\.?\d*|\.\d+)"
DURATION_PART = re.compile(rf"({NUMBER})(ns|us|µs|ms|s|m|h)")
DURATION = re.compile(rf"[+-]?(?:{DURATION_PART.pattern})+")


def now() -> str:
    """Return the time as RFC 3339 in UTC, with microseconds."""
    return _rfc3339(datetime.now(UTC))


def timestamp(nanoseconds: int) -> str:
    """Return the time that is `nanoseconds` after the epoch, as RFC 3339."""
    return _rfc3339(datetime.fromtimestamp(nanoseconds / 1e9, UTC))


def timestamp_after(seconds: float) -> str:
    """Return the time `seconds` from now as RFC 3339; infinity counts as 292 years."""
    return _rfc3339(datetime.now(UTC) + timedelta(seconds=min(seconds, FOREVER_SECONDS)))


def nanoseconds_since(start: int) -> int:
    """Return the nanoseconds since `start`, a reading of `time.perf_counter_ns`."""
    return time.perf_counter_ns() - start


def parse_keep_alive(value: Any) -> float | None:
    """Return a request's `keep_alive` in seconds, `FOREVER` if negative, None if absent.

    A number counts seconds; a string is a Go duration such as "1h30m".
    Raise `BadRequest` with Ollama's message for anything else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRequest(f"Unsupported type: '{_go_type(value)}'")
    seconds = _parse_duration(value.strip()) if isinstance(value, str) else float(value)
    return FOREVER if seconds < 0 else seconds


def parse_setting(text: str) -> float:
    """Return the seconds of a setting such as OLLAMA_KEEP_ALIVE: a number or a Go duration."""
    try:
        seconds: float | None = float(text)
    except ValueError:
        return parse_keep_alive(text) or 0.0
    return parse_keep_alive(seconds) or 0.0


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse_duration(text: str) -> float:
    if text in ("0", "+0", "-0"):
        return 0.0
    if not DURATION.fullmatch(text):
        bare = re.fullmatch(rf"[+-]?{NUMBER}", text)
        problem = "missing unit in duration" if bare else "invalid duration"
        raise BadRequest(f'time: {problem} "{text}"')
    total = sum(float(number) * UNITS[unit] for number, unit in DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def _go_type(value: Any) -> str:
    return {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}[type(value)]
