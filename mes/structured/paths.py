"""Paths through a schema: which loops there are, and how many sub-schemas judge one value."""

from __future__ import annotations

import math
from graphlib import CycleError, TopologicalSorter

from mes.structured.keywords import ELEMENTS, IN_PLACE, MEMBERS, NAMES
from mes.structured.limits import Limits
from mes.structured.outline import Outline, Place
from mes.structured.refusals import unsafe

# The judge follows these one inside the other, on the thread's stack.
_LONGEST_CHAIN = 128
_APPLIED = {IN_PLACE, MEMBERS, NAMES, ELEMENTS}


Edges = dict[Place, list[Place]]


def refuse_endless(outline: Outline, limits: Limits) -> None:
    """Raises SchemaUnsafe where a value would be judged for ever, or by too many sub-schemas."""
    edges = _edges(outline, {IN_PLACE})
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError as exc:
        raise unsafe(exc.args[1][0].path, "refers to itself without consuming anything") from exc
    cost: dict[Place, int] = {}
    height: dict[Place, int] = {}
    for place in order:
        inside = edges.get(place, [])
        cost[place] = 1 + place.repeats * sum(cost[each] for each in inside)
        height[place] = 1 + max((height[each] for each in inside), default=0)
        if cost[place] > limits.fan_out or height[place] > _LONGEST_CHAIN:
            raise unsafe(place.path, "makes one value be judged by too many sub-schemas")


def unrolled(outline: Outline) -> float:
    """How many sub-schemas there would be without references; infinite where they recur."""
    edges = _edges(outline, _APPLIED)
    inner = {place: [each for each in below if each in edges] for place, below in edges.items()}
    size: dict[Place, float] = {}
    try:
        for place in TopologicalSorter(inner).static_order():
            ends = len(edges[place]) - len(inner[place])
            size[place] = 1 + place.repeats * (ends + sum(size[each] for each in inner[place]))
    except CycleError:
        return math.inf
    return size.get(outline.root, 1)


def on_cycles(outline: Outline) -> set[Place]:
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


def _edges(outline: Outline, wheres: set[str]) -> Edges:
    """From each place to those that apply with it; places that lead nowhere are left out."""
    edges = {}
    for place in outline.places:
        if place.below or place.references:
            below = [each for where, each in place.below if where in wheres]
            if following := below + place.references:
                edges[place] = following
    return edges


def _without_ends(onward: Edges, backward: Edges) -> set[Place]:
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
