"""Errors that the runtime reports in a line of a stream, because it has sent a part of the answer.

Before the second run of a generation, under its format, only reasoning has been sent. Its errors
are then those of a refused request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mes.domain import Prompt
from mes.errors import GenerationAborted, MesError, Mistake, PromptTooLong, SchemaRefused
from mes.ollama.error_responses import ErrorResponse, generation_error_from
from mes.ollama.progress import GenerationProgress
from mes.ollama.responses import to_plain_text, unwrap

_REFUSED = 400  # the line does not contain the status


def stream_error_from(
    part: Mapping[str, Any], prompt: Prompt, progress: GenerationProgress
) -> MesError:
    """Return the error that a line reports; GenerationAborted unless the request is refused."""
    text, facts = unwrap(part)
    text = to_plain_text(text)
    if not progress.answer_pieces:
        refused = generation_error_from(ErrorResponse(_REFUSED, text, facts), prompt)
        if isinstance(refused, PromptTooLong):
            return _with_reasoning(refused)
        if isinstance(refused, SchemaRefused):
            return refused
    return GenerationAborted(text or "the runtime broke off with an error")


def _with_reasoning(error: PromptTooLong) -> PromptTooLong:
    detail = f"with the reasoning of the model after it, {error.detail}"
    pointers = (mistake.pointer for mistake in error.mistakes)
    return PromptTooLong(detail, mistakes=tuple(Mistake(each, detail) for each in pointers))
