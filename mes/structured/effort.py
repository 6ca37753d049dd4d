"""Effort: what it would take to list all the ways in which a value breaks a schema.

The validator remembers what it has judged when it only has to say yes or no, but not when it
lists errors: under a recursive schema with alternatives that doubles with each level of the value.
"""

from __future__ import annotations

from typing import Any

from mes.structured.keywords import ELEMENTS, IN_PLACE, MEMBERS, NAMES
from mes.structured.outline import Place

# Each error of an alternative writes out the value it is about.
_ALTERNATIVES = {"anyOf", "oneOf"}


class TooMuch(Exception):
    """More than may be spent."""


def refuse_effort(root: Place, value: Any, most: int) -> None:
    """Raises TooMuch where listing the errors would take more than `most` steps of 5 us."""
    try:
        _Count(most).steps(root, value)
    except RecursionError as exc:
        raise TooMuch from exc


class _Count:
    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[int, int], int] = {}
        self._sizes: dict[int, int] = {}

    def steps(self, place: Place, value: Any) -> int:
        key = (id(place), id(value))
        if key not in self._known:
            self._known[key] = self._counted(place, value)
            if max(self._known[key], len(self._known)) > self._most:
                raise TooMuch
        return self._known[key]

    def _counted(self, place: Place, value: Any) -> int:
        total = 1
        if not _ALTERNATIVES.isdisjoint(place.keywords):
            total += 4 * self._size(value)
        for referenced in place.references:
            total += self.steps(referenced, value)
        for where, below in place.below:
            for part in _parts(where, below, value):
                total += self.steps(below, part)
        return total

    def _size(self, value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._sizes:
            inside = value.values() if isinstance(value, dict) else value
            self._sizes[id(value)] = 1 + sum(map(self._size, inside))
        return self._sizes[id(value)]


def _parts(where: str, below: Place, value: Any) -> list[Any]:
    """The parts of a value that a sub-schema applies to; rather too many than too few."""
    if where == IN_PLACE:
        return [value]
    if where == ELEMENTS and isinstance(value, list):
        return value
    if isinstance(value, dict) and where == NAMES:
        return list(value)
    if isinstance(value, dict) and where == MEMBERS:
        keyword, name = below.path[-2:] if len(below.path) > 1 else ("", below.path[-1])
        if keyword == "properties":
            return [value[name]] if name in value else []
        return list(value.values())
    return []
