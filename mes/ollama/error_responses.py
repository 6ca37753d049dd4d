"""Responses with a status other than 200, and the errors that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mes.domain import Prompt
from mes.domain.capabilities import COMPLETION, THINKING, TOOLS, VISION, not_capable
from mes.domain.inference_request import MODEL_POINTER, THINK_POINTER
from mes.errors import (
    GenerationAborted,
    LoadFailed,
    MesError,
    Mistake,
    ModelNotPulled,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
    SchemaRefused,
    ThinkLevelRefused,
)
from mes.ollama.responses import require_count, to_plain_text, unwrap

_MAX_RETRY_SECONDS = 60

# Parts of Ollama's error texts, and the capability that the model lacks with the JSON pointer of
# the field that needs it.
_NO_COMPLETION = ("does not support generate", "does not support chat")
_MISSING_CAPABILITIES = {
    "does not support thinking": (THINKING, THINK_POINTER),
    "image input is not supported": (VISION, "/messages"),
    "does not support multimodal": (VISION, "/messages"),
    "does not support tools": (TOOLS, "/tools"),
    "tool calls are not supported": (TOOLS, "/messages"),
}
_THINKING = ("think", "reasoning")
_SCHEMA_REFUSED = ("grammar", "json schema", "json_schema", "sampler", "invalid format")
# Ollama answers this with 500 for some models.
_INVALID_IMAGE = "failed to load image"


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A response with a status other than 200.

    Args:
        text: the error text on one line; empty if the body is not one of Ollama's.
        facts: further fields of the innermost error, which the runner of the model adds.
        retry_after: seconds, of the header `Retry-After`.
    """

    status: int
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None


def parse_error_response(status: int, *, body: bytes, retry_after: str | None) -> ErrorResponse:
    """Parse a refusal; a body that is not Ollama's `{"error": ...}` counts as empty."""
    try:
        text, facts = unwrap(orjson.loads(body))
    except orjson.JSONDecodeError:
        text, facts = "", {}
    seconds = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        seconds = float(min(max(int(retry_after[:9]), 1), _MAX_RETRY_SECONDS))
    return ErrorResponse(status, to_plain_text(text), facts, seconds)


def generation_error_from(refusal: ErrorResponse, prompt: Prompt) -> MesError:
    """Return the error of a refused generation."""
    tag, text = prompt.spec.tag, refusal.text.lower()
    if error := _prompt_too_long(refusal, prompt):
        return error
    if _lacks_completion(refusal):
        return not_capable(COMPLETION, tag, pointer=MODEL_POINTER)
    for words, (capability, pointer) in _MISSING_CAPABILITIES.items():
        if words in text:
            return not_capable(capability, tag, pointer=pointer)
    is_mistake = refusal.status in (400, 500)
    if prompt.format is not None and is_mistake and any(w in text for w in _SCHEMA_REFUSED):
        return SchemaRefused(refusal.text)
    if isinstance(prompt.think, str) and is_mistake and any(w in text for w in _THINKING):
        return ThinkLevelRefused(refusal.text)
    if refusal.text and (refusal.status in (400, 413) or _INVALID_IMAGE in text):
        return RequestInvalid(f"the runtime refuses the request: {refusal.text}")
    if refusal.status == 500 and refusal.text:
        return GenerationAborted(refusal.text)
    return error_from(refusal, tag=tag)


def _prompt_too_long(refusal: ErrorResponse, prompt: Prompt) -> MesError | None:
    pointer = "/messages" if prompt.messages else "/prompt"
    remedy = "shorten it, or raise context_window of the model in the catalog"
    if refusal.facts.get("type") == "exceed_context_size_error":
        tokens = require_count(refusal.facts, "n_prompt_tokens")
        context = require_count(refusal.facts, "n_ctx")
        problem = f"the prompt is too long: it has {tokens} tokens, but"
        return too_long(problem, context, remedy, pointer=pointer)
    if "prompt is longer than the context length" in refusal.text.lower():
        limit = prompt.options.get("num_ctx")
        return too_long("the prompt is too long:", limit, remedy, pointer=pointer)
    return None


def too_long(problem: str, context: int | None, rest: str, *, pointer: str) -> PromptTooLong:
    """Return the error of a prompt that exceeds the context, in the words that clients look for.

    Args:
        problem: the beginning of the detail, which the limit follows.
        context: the limit in tokens; None if it is not known.
        rest: the end of the detail.
        pointer: a JSON pointer to the field of the request.
    """
    limit = "this model's maximum context length is"
    limit += " exceeded" if context is None else f" {context} tokens"
    detail = f"{problem} {limit}; {rest}"
    return PromptTooLong(detail, mistakes=(Mistake(pointer, detail),))


def load_error_from(refusal: ErrorResponse, *, tag: str) -> MesError:
    """Return the error of a refused load."""
    if _lacks_completion(refusal):
        return not_capable(COMPLETION, tag, pointer=MODEL_POINTER)
    if refusal.status in (400, 500) and refusal.text:
        return LoadFailed(refusal.text)
    return error_from(refusal, tag=tag)


def error_from(refusal: ErrorResponse, *, tag: str) -> MesError:
    """Return the error of a refusal that any request may get."""
    if refusal.status == 404 and refusal.text:
        return ModelNotPulled(f"the runtime does not have {tag}: run `ollama pull {tag}`")
    if refusal.status in (429, 503):
        detail = refusal.text or "the runtime is busy"
        return RuntimeUnavailable(detail, retry_after=refusal.retry_after)
    return RuntimeReplyInvalid(
        f"the runtime answered {refusal.status}: {refusal.text}".rstrip(": ")
    )


def _lacks_completion(refusal: ErrorResponse) -> bool:
    return refusal.status == 400 and any(words in refusal.text for words in _NO_COMPLETION)
