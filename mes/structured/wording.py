"""The validator's errors in words: short, with the nearest alternative, never the whole answer."""

from __future__ import annotations

from collections.abc import Sequence

import jsonschema_rs

from mes.domain import Violation
from mes.structured.keywords import is_holder
from mes.structured.refusals import pointer, short

Error = jsonschema_rs.ValidationError

# What stands for a value in the validator's messages.
VALUE = "the value"


def in_words(error: Error) -> Violation:
    """Where, which keyword, and what is wrong."""
    where = short(pointer(error.instance_path))
    return Violation(where, _keyword(error), short(_detail(error)))


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
    where = pointer(nearest.instance_path) or "there"
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
