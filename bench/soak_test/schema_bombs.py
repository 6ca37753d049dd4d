"""JSON Schemas whose counts would expand to a grammar larger than the memory."""

from __future__ import annotations

from typing import Any

_MOST = 2_147_483_647
_WORD = {"type": "string"}


def _lists(levels: int, **counts: int) -> dict[str, Any]:
    items = _lists(levels - 1, **counts) if levels > 1 else _WORD
    return {"type": "array", "items": items, **counts}


BOMBS: list[dict[str, Any]] = [
    _lists(1, maxItems=_MOST),
    _lists(6, maxItems=10_000),
    _lists(6, minItems=1, maxItems=1000),
    {"type": "string", "maxLength": _MOST},
    {"type": "object", "maxProperties": _MOST},
    {"type": "string", "pattern": "^(a{101}b){100}$"},
    {"type": "string", "pattern": f"a{{0,{_MOST}}}"},
    {"$ref": "#/$defs/list", "$defs": {"list": _lists(3, maxItems=_MOST)}},
]
