"""The recorded exchanges with a real Ollama, one a line in `tests/data`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parents[1] / "data"


@functools.cache
def exchanges(name: str = "ollama-transcripts") -> dict[str, Any]:
    """Return the exchanges of one recording by their case, in the order of the recording."""
    lines = (_DATA / f"{name}.jsonl").read_text().splitlines()
    return {exchange["case"]: exchange for exchange in map(json.loads, lines)}


@functools.cache
def all_exchanges() -> dict[str, Any]:
    """Return the exchanges of both recordings; no case but `version` is in both."""
    return {**exchanges("ollama-transcripts-2"), **exchanges()}
