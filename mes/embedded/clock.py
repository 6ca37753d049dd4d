"""Times as Ollama writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

FOREVER_SECONDS = 292 * 365 * 86400


def now() -> str:
    """RFC 3339, UTC, microseconds"""
    return _text(datetime.now(UTC))


def at(nanoseconds: int) -> str:
    return _text(datetime.fromtimestamp(nanoseconds / 1e9, UTC))


def after(seconds: float) -> str:
    """From now on; infinity is 292 years"""
    return _text(datetime.now(UTC) + timedelta(seconds=min(seconds, FOREVER_SECONDS)))


def since(start: int) -> int:
    """Nanoseconds since that reading of `time.perf_counter_ns`"""
    return time.perf_counter_ns() - start


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
