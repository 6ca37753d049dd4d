"""Token ids: the request for their text, and its response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mes.domain import ModelSpec
from mes.domain.capabilities import TOKENIZE, not_capable
from mes.errors import GenerationAborted, MesError, Mistake, RequestInvalid
from mes.ollama.error_responses import ErrorResponse, error_from
from mes.ollama.responses import get_field, parse_line

_POINTER = "/prompt"


def detokenize_payload(spec: ModelSpec, ids: Sequence[int]) -> dict[str, Any]:
    """Return the body for /api/detokenize."""
    return {"model": spec.tag, "tokens": ids, "options": spec.load_options}


def parse_text(body: bytes) -> str:
    """Return the text in the answer of /api/detokenize."""
    return get_field(parse_line(body, error_class=GenerationAborted), "text", str, "")


def detokenize_error_from(refusal: ErrorResponse, *, tag: str) -> MesError:
    """Return the error of token ids that were not converted."""
    if refusal.status == 404 and not refusal.text:  # Ollama has no such route
        return not_capable(TOKENIZE, tag, pointer=_POINTER)
    if refusal.status == 400 and refusal.text:
        return RequestInvalid(refusal.text, mistakes=(Mistake(_POINTER, refusal.text),))
    return error_from(refusal, tag=tag)
