"""Refusals: why a schema is not taken, and where in it that shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mes.domain import SCHEMA_PLACE
from mes.errors import MesError, Mistake, SchemaInvalid, SchemaUnsafe

_LONGEST_DETAIL = 200


def invalid(path: Iterable[Any], problem: str) -> SchemaInvalid:
    """It is no JSON Schema."""
    mistake = _mistake(path, problem)
    summary = f"json_schema is not a valid JSON Schema: {mistake.pointer}: {mistake.detail}"
    return SchemaInvalid(summary, mistakes=(mistake,))


def unsafe(path: Iterable[Any], problem: str) -> SchemaUnsafe:
    """It is one, but judging by it could hang, leak or cost too much."""
    mistake = _mistake(path, problem)
    summary = f"json_schema cannot be used safely: {mistake.pointer}: {mistake.detail}"
    return SchemaUnsafe(summary, mistakes=(mistake,))


def moved(error: SchemaInvalid | SchemaUnsafe, place: str) -> MesError:
    """The same, about a schema that stands elsewhere in the request."""
    mistakes = [
        replace(each, pointer=place + each.pointer[len(SCHEMA_PLACE) :]) for each in error.mistakes
    ]
    summary = error.detail.replace(f" {SCHEMA_PLACE}", f" {place}", 1)
    return type(error)(summary, mistakes=tuple(mistakes))


def _mistake(path: Iterable[Any], problem: str) -> Mistake:
    return Mistake(short(SCHEMA_PLACE + pointer(path)), short(problem))


def pointer(path: Iterable[Any]) -> str:
    """A path into a document as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def short(text: str) -> str:
    """In a line that fits a log and a prompt; what is left out is told by an ellipsis."""
    text = text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"
    return text.encode("utf-8", "replace").decode()
