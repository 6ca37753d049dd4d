"""A hostile schema with its right outcomes, and helpers to build such schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

INVALID = "schema_invalid"
UNSAFE = "schema_unsafe"
NOT_AS_FORMAT = "not_as_format"
"""It validates answers, but the runtime's converter would crash or hang, or decoding not end."""
JUDGED = "judged"
"""It validates answers; the test does not say whether it may become a grammar."""


@dataclass(frozen=True)
class Case:
    """A schema, an answer to validate, the right outcomes and the right verdict, if only one is.

    Several outcomes are right where correct services differ, such as for a pattern that ECMA-262
    forbids and that the engine of regular expressions accepts.
    """

    schema: Schema
    outcomes: tuple[str, ...]
    answer: str = "{}"
    verdict: str | None = None


def refused(code: str, schemas: dict[str, Schema]) -> dict[str, Case]:
    """Return cases of schemas that are all rejected with the same code."""
    return {name: Case(schema, (code,)) for name, schema in schemas.items()}


def judged(schema: Schema, answer: Any, verdict: str | None = None) -> Case:
    """Return a case of an acceptable schema with an answer that is expensive to validate."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Case(schema, (JUDGED,), text, verdict)


def nested(innermost: Any, depth: int, wrap: Callable[[Any], Any]) -> Any:
    """Return `wrap(wrap(wrap(innermost)))` with `depth` calls."""
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


def chain(length: int, link: Callable[[Schema], Schema], end: Schema | None = None) -> Schema:
    """Return definitions of which each refers to the next; the root refers to the first."""
    links = {f"d{n}": link({"$ref": f"#/$defs/d{n + 1}"}) for n in range(length)}
    last = {"type": "integer"} if end is None else end
    return {"$defs": {**links, f"d{length}": last}, "$ref": "#/$defs/d0"}


NODE = {"$ref": "#/$defs/node"}


def recursive(node: Schema) -> Schema:
    """Return a schema whose only definition refers to itself as NODE."""
    return {"$defs": {"node": node}, **NODE}


def draft(name: str, **schema: Any) -> Schema:
    """Return a schema of an older dialect, such as `draft("draft-04", id="x")`."""
    old = name.startswith("draft-")
    address = f"http://json-schema.org/{name}/schema#"
    return {"$schema": address if old else f"https://json-schema.org/draft/{name}/schema", **schema}
