"""The validator's errors in words: short, with the nearest alternative, never the whole answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import jsonschema_rs

from mes.domain import SCHEMA_POINTER, ValidationResult, Violation
from mes.errors import MesError, Mistake, SchemaInvalid, SchemaUnsafe
from mes.structured.keywords import is_holder

Error = jsonschema_rs.ValidationError

# What stands for a value in the validator's messages.
VALUE = "the value"


def describe_violation(error: Error) -> Violation:
    """Where, which keyword, and what is wrong."""
    where = shorten(json_pointer(error.instance_path))
    return Violation(where, _keyword(error), shorten(_detail(error)))


def _keyword(error: Error) -> str:
    name = str(error.kind.name)
    if name != "falseSchema":
        return name
    # `false` is no keyword: the one that holds it says why nothing may stand there.
    steps = (str(step) for step in reversed(error.schema_path))
    return next((step for step in steps if is_holder(step)), "false")


def _detail(error: Error) -> str:
    if error.kind.name == "falseSchema":
        return f"{VALUE} is not allowed here"
    nearest = _nearest(getattr(error.kind, "context", ()))
    if nearest is None:
        return str(error.message)
    where = json_pointer(nearest.instance_path) or "there"
    return f"{VALUE} fits none of the alternatives; nearest: at {where} {nearest.message}"


def _nearest(alternatives: Sequence[Sequence[Error]]) -> Error | None:
    """The deepest error of the alternative that was most likely meant."""
    failed = [errors for errors in alternatives if errors]
    if not failed:
        return None
    meant: Sequence[Error] = max(failed, key=_likelihood)
    return max(meant, key=_depth)


def _likelihood(errors: Sequence[Error]) -> tuple[bool, int, int]:
    """Alternatives are told apart by fixed values; then by how far they got into the value."""
    is_another_kind = any(error.kind.name in ("const", "enum") for error in errors)
    return not is_another_kind, max(map(_depth, errors)), -len(errors)


def _depth(error: Error) -> int:
    return len(error.instance_path)


# Refusals: why a schema is not taken, and where in it that shows.

_LONGEST_DETAIL = 200


def schema_invalid(path: Iterable[Any], problem: str) -> SchemaInvalid:
    """It is no JSON Schema."""
    mistake = _mistake(path, problem)
    summary = f"json_schema is not a valid JSON Schema: {mistake.pointer}: {mistake.detail}"
    return SchemaInvalid(summary, mistakes=(mistake,))


def schema_unsafe(path: Iterable[Any], problem: str) -> SchemaUnsafe:
    """It is one, but judging by it could hang, leak or cost too much."""
    mistake = _mistake(path, problem)
    summary = f"json_schema cannot be used safely: {mistake.pointer}: {mistake.detail}"
    return SchemaUnsafe(summary, mistakes=(mistake,))


def with_pointer_prefix(error: SchemaInvalid | SchemaUnsafe, place: str) -> MesError:
    """The same, about a schema that stands elsewhere in the request."""
    mistakes = [
        replace(m, pointer=place + m.pointer[len(SCHEMA_POINTER) :]) for m in error.mistakes
    ]
    summary = error.detail.replace(f" {SCHEMA_POINTER}", f" {place}", 1)
    return type(error)(summary, mistakes=tuple(mistakes))


def _mistake(path: Iterable[Any], problem: str) -> Mistake:
    return Mistake(shorten(SCHEMA_POINTER + json_pointer(path)), shorten(problem))


def json_pointer(path: Iterable[Any]) -> str:
    """A path into a document as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def shorten(text: str) -> str:
    """In a line that fits a log and a prompt; what is left out is told by an ellipsis."""
    text = text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"
    return text.encode("utf-8", "replace").decode()


# Prompts: a schema in words for the model, and what was wrong with its answer.

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
