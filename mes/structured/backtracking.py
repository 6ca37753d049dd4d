"""Patterns with look-around or back-references, matched by an engine that gives up at a limit.

All other patterns take linear time. The engine for these counts how often it goes back, but not the
time of one step, which grows with the text and with the pattern. Hence three limits: the steps, the
size of text and pattern, and the time for all texts of an answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jsonschema_rs

from mes.structured.keywords import patterns, weight
from mes.structured.messages import json_pointer, shorten
from mes.structured.schema_tree import Path, SchemaNode

_MOST_STEPS_BACK = 2_000
# Characters of the text times the weight of the pattern. 2,000 steps then take 25 ms at most; the
# pattern of a decimal number is matched with texts of up to 2,000 characters.
_MOST_SIZE = 60_000
_MOST_SECONDS = 0.02
# The unit of `validation_cost`.
_STEPS_PER_SECOND = 20_000_000

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

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for({"pattern": self._text}, pattern_options=BACKTRACKING)

    def match(self, text: str) -> None:
        """Match the text.

        Raises:
            Undecided: the text is too long for the pattern, or matching takes too many steps.
        """
        if len(text) * self._weight > _MOST_SIZE:
            raise self.undecided(f"is too expensive for a text of {len(text)} characters")
        for error in self._validator.iter_errors(text):
            if isinstance(error.kind, _GIVEN_UP):
                raise self.undecided(f"takes more than {_MOST_STEPS_BACK} steps")

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

    def of(self, node: SchemaNode) -> Sequence[tuple[str, _Pattern]]:
        """Return the patterns directly in the node, each with its keyword."""
        return self._by_node.get(id(node), ())


class MatchingCost:
    """The cost of matching the texts of one value, in the unit of `validation_cost`."""

    def __init__(self, backtracking: BacktrackingPatterns) -> None:
        self._backtracking = backtracking
        self._seconds_left = _MOST_SECONDS

    def steps(self, node: SchemaNode, value: Any) -> int:
        """Return the steps that the patterns of the node take for the value.

        Raises:
            Undecided: a pattern cannot be matched within the limits.
        """
        began = time.thread_time()
        for keyword, pattern in self._backtracking.of(node):
            for text in _texts(keyword, value):
                pattern.match(text)
                if time.thread_time() - began > self._seconds_left:
                    raise pattern.undecided(f"takes longer than {_MOST_SECONDS * 1000:g} ms")
        seconds = time.thread_time() - began
        self._seconds_left -= seconds
        return int(seconds * _STEPS_PER_SECOND)


def _texts(keyword: str, value: Any) -> Iterator[str]:
    if keyword == "pattern" and isinstance(value, str):
        yield value
    if keyword == "patternProperties" and isinstance(value, dict):
        yield from value
