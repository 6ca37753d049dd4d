"""Effort: how many times sub-schemas would be applied in judging a value.

It can double with each level of the value, under a small schema: where two alternatives, or `items`
and `contains`, both look into the same part. Nothing is remembered between them by the validator.
Here all is, so counting takes a step for each sub-schema and part at most.
"""

from __future__ import annotations

from typing import Any

from mes.structured.keywords import ELEMENTS, IN_PLACE, MEMBERS, NAMES
from mes.structured.outline import Place

# Each error of an alternative writes out the value that it is about.
_ALTERNATIVES = {"anyOf", "oneOf"}
_MOST_PAIRS = 20_000


class TooMuch(Exception):
    """More than may be spent."""


def effort(root: Place, value: Any, *, most: int) -> int:
    """How many steps judging takes, each of about 50 ns; listing errors 100 times as long.

    Rather too many than too few. Raises TooMuch where they are more than `most`.
    """
    try:
        return _Count(most).steps(root, value)
    except RecursionError as exc:
        raise TooMuch from exc


class _Count:
    def __init__(self, most: int) -> None:
        self._most = most
        self._most_pairs = min(most, _MOST_PAIRS)
        self._known: dict[tuple[int, int], int] = {}
        self._sizes: dict[int, int] = {}

    def steps(self, place: Place, value: Any) -> int:
        key = (id(place), id(value))
        if key not in self._known:
            self._known[key] = self._counted(place, value)
            if self._known[key] > self._most or len(self._known) > self._most_pairs:
                raise TooMuch
        return self._known[key]

    def _counted(self, place: Place, value: Any) -> int:
        total = sum(self.steps(each, value) for each in place.references)
        for where, below in place.below:
            total += sum(self.steps(below, part) for part in _parts(where, below, value))
        if not _ALTERNATIVES.isdisjoint(place.keywords):
            total += 4 * self._size(value)
        return 1 + place.repeats * total

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
        if below.path[-2:-1] == ("properties",):
            name = below.path[-1]
            return [value[name]] if name in value else []
        return list(value.values())
    return []
