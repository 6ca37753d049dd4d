"""Patterns with look-around or back-references, matched by an engine that gives up at a limit.

All other patterns take linear time. The engine for these counts how often it goes back, but not the
time of one step, which grows with the text and with the pattern. Hence three limits: the steps, the
size of text and pattern, and the estimated time for all texts of an answer. The time is estimated
and not measured, so that the same answer has the same verdict on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import jsonschema_rs

from mes.domain.json_pointer import json_pointer
from mes.structured.keywords import patterns, weight
from mes.structured.messages import shorten
from mes.structured.schema_tree import Path, SchemaNode

_FEW_STEPS_BACK = 100
_MOST_STEPS_BACK = 2_000
# Characters of the text times the weight of the pattern. 2,000 steps then take 25 ms at most; the
# pattern of a decimal number is matched with texts of up to 2,000 characters.
_MOST_SIZE = 60_000
# In the unit of `validation_cost`, 50 ns: a match with hardly a step back, and what each unit of
# size adds at most, with few steps back and with many.
_COST_OF_MATCH = 40
_COST_WITH_FEW, _COST_WITH_MANY = 0.42, 8.4

_QUICK = jsonschema_rs.FancyRegexOptions(backtrack_limit=_FEW_STEPS_BACK)
BACKTRACKING = jsonschema_rs.FancyRegexOptions(backtrack_limit=_MOST_STEPS_BACK)
LINEAR = jsonschema_rs.RegexOptions()


_GIVEN_UP = (
    jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded,
    jsonschema_rs.ValidationErrorKind.RegexEngineFailure,
)


class Undecided(Exception):
    """A pattern cannot be matched within the limits, so the value is neither valid nor invalid."""


def compiles(pattern: str, options: Any) -> bool:
    """Return whether the engine with these options can match the pattern."""
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
    except ValueError:
        return False
    return True


class _Pattern:
    """One pattern; `path` is its place in the schema."""

    def __init__(self, text: str, path: Path) -> None:
        self._text = text
        self._path = path
        self._weight = max(1, weight(text))

    def match(self, text: str) -> int:
        """Match the text, and return the cost in the unit of `validation_cost`.

        Raises:
            Undecided: the text is too long for the pattern, or matching takes too many steps.
        """
        size = len(text) * self._weight
        if size > _MOST_SIZE:
            raise self.undecided(f"is too expensive for a text of {len(text)} characters")
        if not _gives_up(self._quick, text):
            return int(_COST_OF_MATCH + _COST_WITH_FEW * size)
        if _gives_up(self._thorough, text):
            raise self.undecided(f"takes more than {_MOST_STEPS_BACK} steps")
        return int(_COST_OF_MATCH + _COST_WITH_MANY * size)

    @cached_property
    def _quick(self) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for({"pattern": self._text}, pattern_options=_QUICK)

    @cached_property
    def _thorough(self) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for({"pattern": self._text}, pattern_options=BACKTRACKING)

    def undecided(self, reason: str) -> Undecided:
        return Undecided(f"the pattern at {shorten(json_pointer(self._path), 100)} {reason}")


class BacktrackingPatterns:
    """The patterns of a schema that take more than linear time, by the nodes that contain them."""

    def __init__(self, nodes: Iterable[SchemaNode]) -> None:
        self._by_node: dict[int, list[tuple[str, _Pattern]]] = {}
        for node in nodes:
            for path, text in patterns(node.keywords):
                if not compiles(text, LINEAR):
                    pattern = _Pattern(text, (*node.path, *path))
                    self._by_node.setdefault(id(node), []).append((str(path[0]), pattern))

    def matching_cost(self, node: SchemaNode, value: Any) -> int:
        """Match the texts of a value with the patterns in the node, and return the cost.

        Raises:
            Undecided: a pattern cannot be matched within the limits.
        """
        return sum(
            pattern.match(text)
            for keyword, pattern in self._by_node.get(id(node), ())
            for text in _texts(keyword, value)
        )


def _gives_up(validator: jsonschema_rs.Validator, text: str) -> bool:
    """Return whether matching the text takes more steps back than the validator may take."""
    return any(isinstance(error.kind, _GIVEN_UP) for error in validator.iter_errors(text))


def _texts(keyword: str, value: Any) -> Iterator[str]:
    if keyword == "pattern" and isinstance(value, str):
        yield value
    if keyword == "patternProperties" and isinstance(value, dict):
        yield from value
