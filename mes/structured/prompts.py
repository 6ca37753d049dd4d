"""Prompts: a schema in words for the model, and what was wrong with its answer."""

from __future__ import annotations

from mes.domain import ValidationResult

_MOST_MISTAKES = 5
_LONGEST_ANSWER = 2_000


def with_schema(text: str, schema_text: str) -> str:
    """The prompt, with the schema told."""
    return f"{text}\n\nAnswer only with JSON that satisfies this JSON Schema:\n{schema_text}"


def with_feedback(text: str, answer: str, validation: ValidationResult) -> str:
    """The prompt, with the answer that it got last and what was wrong with it, briefly."""
    mistakes = "\n".join(
        f"- {each.pointer}: {each.detail}" if each.pointer else f"- {each.detail}"
        for each in validation.errors[:_MOST_MISTAKES]
    )
    return (
        f"{text}\n\nYour last answer was:\n{_cut(answer)}\n\n"
        f"It was not accepted:\n{mistakes}\n\n"
        "Answer again, with the corrected JSON only."
    )


def _cut(answer: str) -> str:
    if len(answer) <= _LONGEST_ANSWER:
        return answer
    half = _LONGEST_ANSWER // 2
    return f"{answer[:half]} … {answer[-half:]}"
