"""Slots: how many requests of a model the runtime serves at a time, and where it says so.

Ollama reports no number. It gives every model OLLAMA_NUM_PARALLEL slots, which only its own process
knows, but a single one to some families, and to models that generate no text (see CapabilityCache).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The families of Ollama 0.33 for which it ignores OLLAMA_NUM_PARALLEL.
_SINGLE_SLOT_FAMILIES = frozenset(
    {"mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe"}
    | {"nemotron_h", "nemotron_h_moe", "nemotron_h_omni"}
)


def parse_slots(model: Mapping[str, Any], family: str) -> int | None:
    """Return the slots of an entry of /api/tags, or None if they are unknown.

    Only the embedded runtime sends `slots`.
    """
    reported = model.get("slots")
    if type(reported) is int and reported > 0:
        return reported
    return 1 if family in _SINGLE_SLOT_FAMILIES else None
