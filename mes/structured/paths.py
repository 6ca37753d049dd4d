"""Paths through a schema: which loops there are, and how many sub-schemas judge one value."""

from __future__ import annotations

import math
from graphlib import CycleError, TopologicalSorter

from mes.structured.keywords import IN_PLACE, NOWHERE
from mes.structured.limits import Limits
from mes.structured.outline import Outline, Place
from mes.structured.refusals import unsafe

# The judge follows these one inside the other, on the thread's stack.
_LONGEST_CHAIN = 128


def in_place(place: Place) -> list[Place]:
    """What applies to the same value as soon as this place does."""
    return [each for where, each in place.below if where == IN_PLACE] + place.references


def refuse_endless(outline: Outline, limits: Limits) -> None:
    """Raises SchemaUnsafe where a value would be judged for ever, or by too many sub-schemas."""
    try:
        order = TopologicalSorter({each: in_place(each) for each in outline.places}).static_order()
        inner_first = list(order)
    except CycleError as exc:
        raise unsafe(exc.args[1][0].path, "refers to itself without consuming anything") from exc
    cost: dict[Place, int] = {}
    height: dict[Place, int] = {}
    for place in inner_first:
        cost[place] = 1 + place.repeats * sum(cost[each] for each in in_place(place))
        height[place] = 1 + max((height[each] for each in in_place(place)), default=0)
        if cost[place] > limits.fan_out or height[place] > _LONGEST_CHAIN:
            raise unsafe(place.path, "makes one value be judged by too many sub-schemas")


def unrolled(outline: Outline) -> float:
    """How many sub-schemas there would be without references; infinite where they recur."""
    onward = _onward(outline)
    size: dict[Place, float] = {}
    try:
        for place in TopologicalSorter(onward).static_order():
            size[place] = 1 + place.repeats * sum(size[each] for each in onward[place])
    except CycleError:
        return math.inf
    return size[outline.root]


def on_cycles(outline: Outline) -> set[Place]:
    """The places that a walk may come back to, and those between them."""
    onward = _onward(outline)
    backward: dict[Place, list[Place]] = {each: [] for each in onward}
    for place, following in onward.items():
        for each in following:
            backward[each].append(place)
    return _without_ends(onward, backward) & _without_ends(backward, onward)


def _onward(outline: Outline) -> dict[Place, list[Place]]:
    return {
        each: [below for where, below in each.below if where != NOWHERE] + each.references
        for each in outline.places
    }


def _without_ends(
    onward: dict[Place, list[Place]], backward: dict[Place, list[Place]]
) -> set[Place]:
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
