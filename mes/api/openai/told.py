"""What the answers at OpenAI's doors have in common."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from mes.api.requests import line
from mes.api.services import services

Document = dict[str, Any]

# Facts that OpenAI has no place for; its clients pass over the member that holds them.
_OWN = (
    "success",
    "code",
    "error",
    "request_id",
    "latency_ms",
    "timings",
    "structured",
    "provenance",
)


def head(kind: str, prefix: str, model_id: str) -> Document:
    """What each answer, and each piece of one, begins with. Raises ModelNotFound."""
    return {
        "id": f"{prefix}-{line().request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": services().catalog.current().get(model_id).id,
    }


def whole(start: Document, choice: Document, document: Document) -> Document:
    """The answer."""
    facts = {"usage": document["usage"], **_facts(document)}
    return {**start, "choices": [choice], **facts}


def ending(
    start: Document, choice: Document, document: Document, *, with_usage: bool
) -> Iterator[Document]:
    """The last chunks of it."""
    yield {**start, "choices": [choice], **_facts(document)}
    if with_usage:
        yield {**start, "choices": [], "usage": document["usage"]}


def _facts(document: Document) -> Document:
    return {"system_fingerprint": _fingerprint(document), "mes": _own(document)}


def _own(document: Document) -> Document:
    """The member `mes`."""
    told = {name: document[name] for name in _OWN if name in document}
    if "tool_calls" in document:
        judged = ("id", "verdict", "errors")
        calls = [{name: call[name] for name in judged} for call in document["tool_calls"]]
        told["tool_calls"] = calls
    return told


def _fingerprint(document: Document) -> str | None:
    """Alike where the same model answered."""
    digest = document["provenance"]["model_digest"]
    return digest and f"fp_{digest.removeprefix('sha256:')[:12]}"


def text_of(document: Document) -> str:
    """The output; of a valid answer in a fence or in prose, the JSON alone."""
    structured = document["structured"]
    if structured and structured["verdict"] == "valid" and structured["extraction"] != "whole":
        return json.dumps(document["parsed"], ensure_ascii=False)
    output: str = document["output"]
    return output
