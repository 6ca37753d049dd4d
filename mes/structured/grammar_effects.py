"""The effects that keywords have in a grammar, and the contradictions that no grammar can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

ENFORCED = "enforced"
IGNORED = "ignored"
# It is left out of the grammar, because the runtime would refuse the schema or worse.
OMITTED = "omitted"
# The runtime responds with 400 before it generates a token.
REFUSED = "refused"
# The grammar excludes some valid answers, or all of them.
DISTORTED = "distorted"
EXCLUDED = "excluded"
# The converter crashes or does not end, or decoding cannot end.
FATAL = "fatal"
# No value is valid here, which excludes all answers if each of them needs a value here.
CONTRADICTION = "contradiction"


class Effect(NamedTuple):
    """The effect of a keyword: one of the kinds above, and the reason."""

    keyword: str
    kind: str
    reason: str = ""


Keywords = dict[str, Any]
Effects = Iterator[Effect]

WITHOUT_EFFECT = {
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$defs",
    "definitions", "$vocabulary", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip


def required_properties(keywords: Keywords) -> list[str]:
    """Return the names under `required`; none if it is a boolean, as in draft 3."""
    required = keywords.get("required")
    return required if isinstance(required, list) else []


def undeclared_properties(keywords: Keywords) -> set[str]:
    """Return the names under `required` that are not under `properties`."""
    declared: Keywords = keywords.get("properties", {})
    return set(required_properties(keywords)) - declared.keys()


def contradictions(keywords: Keywords) -> Effects:
    """Yield bounds that no value can meet: the converter does not end, or decoding cannot end."""
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        if keywords.get(least, 0) > keywords.get(most, math.inf):
            yield Effect(least, FATAL, f"is more than {most}")
    if keywords.get("type") == "integer" and _lowest(keywords) > _highest(keywords):
        yield Effect("minimum", FATAL, "leaves no integer up to the maximum")


def _lowest(keywords: Keywords) -> float:
    """Return the smallest integer within the bounds."""
    exclusive = keywords.get("exclusiveMinimum")
    above = math.floor(exclusive) + 1 if _is_number(exclusive) else -math.inf
    return max(above, math.ceil(keywords["minimum"]) if "minimum" in keywords else -math.inf)


def _highest(keywords: Keywords) -> float:
    """Return the largest integer within the bounds."""
    exclusive = keywords.get("exclusiveMaximum")
    below = math.ceil(exclusive) - 1 if _is_number(exclusive) else math.inf
    return min(below, math.floor(keywords["maximum"]) if "maximum" in keywords else math.inf)


def _is_number(value: Any) -> TypeGuard[float]:
    # In draft 4 the exclusive bounds are booleans.
    return isinstance(value, int | float) and not isinstance(value, bool)
