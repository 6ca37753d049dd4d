"""One hostile schema with what has to come of it, and the small parts that many are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

INVALID = "schema_invalid"
UNSAFE = "schema_unsafe"
NOT_AS_FORMAT = "not_as_format"
"""Answers are judged by it, but the runtime's converter would crash, hang or never end on it."""
JUDGED = "judged"
"""Answers are judged by it; whether the runtime sees it as a grammar is open."""


@dataclass(frozen=True)
class Case:
    """A schema, an answer to judge by it, and the outcomes that are right.

    More than one where honest services differ, such as over a pattern that ECMA-262 forbids and
    the engine of regular expressions knows how to read.
    """

    schema: Schema
    outcomes: tuple[str, ...]
    answer: str = "{}"
    verdict: str | None = None


def refused(code: str, schemas: dict[str, Schema]) -> dict[str, Case]:
    """Schemas that are all refused with the same code."""
    return {name: Case(schema, (code,)) for name, schema in schemas.items()}


def judged(schema: Schema, answer: Any, verdict: str | None = None) -> Case:
    """A schema that is no reason to refuse, and an answer that takes some judging."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Case(schema, (JUDGED,), text, verdict)


def nested(innermost: Any, depth: int, wrap: Callable[[Any], Any]) -> Any:
    """`wrap(wrap(wrap(innermost)))`, so deep."""
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


def chain(length: int, link: Callable[[Schema], Schema], end: Schema | None = None) -> Schema:
    """Definitions of which each is made from a reference to the next; the root is the first."""
    links = {f"d{n}": link({"$ref": f"#/$defs/d{n + 1}"}) for n in range(length)}
    last = {"type": "integer"} if end is None else end
    return {"$defs": {**links, f"d{length}": last}, "$ref": "#/$defs/d0"}


NODE = {"$ref": "#/$defs/node"}


def recursive(node: Schema) -> Schema:
    """A schema whose only definition refers to itself as NODE."""
    return {"$defs": {"node": node}, **NODE}


def draft(name: str, **schema: Any) -> Schema:
    """A schema of an older dialect, such as `draft("draft-04", id="x")`."""
    old = name.startswith("draft-")
    place = f"http://json-schema.org/{name}/schema#"
    return {"$schema": place if old else f"https://json-schema.org/draft/{name}/schema", **schema}
