"""Paths through a schema: which loops there are, and how many sub-schemas judge one value."""

from __future__ import annotations

import math
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mes.structured.keywords import ELEMENTS, IN_PLACE, MEMBERS, NAMES
from mes.structured.messages import schema_unsafe
from mes.structured.schema_tree import SchemaLimits, SchemaNode, SchemaTree

# The judge follows these one inside the other, on the thread's stack.
_LONGEST_CHAIN = 128
_APPLIED = {IN_PLACE, MEMBERS, NAMES, ELEMENTS}


Edges = dict[SchemaNode, list[SchemaNode]]


def refuse_endless_schema(outline: SchemaTree, limits: SchemaLimits) -> None:
    """Raises SchemaUnsafe where a value would be judged for ever, or by too many sub-schemas."""
    edges = _edges(outline, {IN_PLACE})
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError as exc:
        raise schema_unsafe(
            exc.args[1][0].path, "refers to itself without consuming anything"
        ) from exc
    cost: dict[SchemaNode, int] = {}
    height: dict[SchemaNode, int] = {}
    for place in order:
        inside = edges.get(place, [])
        cost[place] = 1 + place.repeats * sum(cost[each] for each in inside)
        height[place] = 1 + max((height[each] for each in inside), default=0)
        if cost[place] > limits.fan_out or height[place] > _LONGEST_CHAIN:
            raise schema_unsafe(place.path, "makes one value be judged by too many sub-schemas")


def unrolled_size(outline: SchemaTree) -> float:
    """How many sub-schemas there would be without references; infinite where they recur."""
    edges = _edges(outline, _APPLIED)
    inner = {place: [each for each in below if each in edges] for place, below in edges.items()}
    size: dict[SchemaNode, float] = {}
    try:
        for place in TopologicalSorter(inner).static_order():
            ends = len(edges[place]) - len(inner[place])
            size[place] = 1 + place.repeats * (ends + sum(size[each] for each in inner[place]))
    except CycleError:
        return math.inf
    return size.get(outline.root, 1)


def nodes_on_cycles(outline: SchemaTree) -> set[SchemaNode]:
    """The places that a walk may come back to, and those between them."""
    edges = _edges(outline, _APPLIED)
    onward: Edges = {
        place: [each for each in below if each in edges] for place, below in edges.items()
    }
    backward: Edges = {each: [] for each in onward}
    for place, following in onward.items():
        for each in following:
            backward[each].append(place)
    return _without_ends(onward, backward) & _without_ends(backward, onward)


def _edges(outline: SchemaTree, wheres: set[str]) -> Edges:
    """From each place to those that apply with it; places that lead nowhere are left out."""
    edges = {}
    for place in outline.places:
        if place.below or place.references:
            below = [each for where, each in place.below if where in wheres]
            if following := below + place.references:
                edges[place] = following
    return edges


def _without_ends(onward: Edges, backward: Edges) -> set[SchemaNode]:
    """What remains when whatever leads nowhere is taken away again and again."""
    left = {place: len(following) for place, following in onward.items()}
    ends = [place for place, count in left.items() if count == 0]
    while ends:
        end = ends.pop()
        del left[end]
        for place in backward[end]:
            left[place] -= 1
            if left[place] == 0:
                ends.append(place)
    return set(left)


# Effort: how many times sub-schemas would be applied in judging a value. It can double with each
# level of the value, under a small schema: where two alternatives, or `items` and `contains`,
# both look into the same part. Nothing is remembered between them by the validator. Here all is,
# so counting takes a step for each sub-schema and part at most.

# Each error of an alternative writes out the value that it is about.
_ALTERNATIVES = {"anyOf", "oneOf"}
_MOST_PAIRS = 20_000


class CostExceeded(Exception):
    """More than may be spent."""


def validation_cost(root: SchemaNode, value: Any, *, most: int) -> int:
    """How many steps judging takes, each of about 50 ns; listing errors 100 times as long.

    Rather too many than too few. Raises TooMuch where they are more than `most`.
    """
    try:
        return _CostCounter(most).steps(root, value)
    except RecursionError as exc:
        raise CostExceeded from exc


class _CostCounter:
    def __init__(self, most: int) -> None:
        self._most = most
        self._most_pairs = min(most, _MOST_PAIRS)
        self._known: dict[tuple[int, int], int] = {}
        self._sizes: dict[int, int] = {}

    def steps(self, place: SchemaNode, value: Any) -> int:
        key = (id(place), id(value))
        if key not in self._known:
            self._known[key] = self._counted(place, value)
            if self._known[key] > self._most or len(self._known) > self._most_pairs:
                raise CostExceeded
        return self._known[key]

    def _counted(self, place: SchemaNode, value: Any) -> int:
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


def _parts(where: str, below: SchemaNode, value: Any) -> list[Any]:
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
