"""The cost of validation: endless recursion, and the number of sub-schemas that apply to a value.

The checks of a schema look at the schema alone. `validation_cost` looks at a schema and a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mes.structured.keywords import IN_PLACE, ITEMS, PROPERTY_NAMES, PROPERTY_VALUES
from mes.structured.messages import schema_unsafe
from mes.structured.schema_tree import SchemaLimits, SchemaNode, SchemaTree

# The validator applies these recursively, on the stack of the thread.
_LONGEST_CHAIN = 128
_APPLIED = {IN_PLACE, PROPERTY_VALUES, PROPERTY_NAMES, ITEMS}


Edges = dict[SchemaNode, list[SchemaNode]]


def check_validation_cost(tree: SchemaTree, limits: SchemaLimits) -> None:
    """Check that a finite and small number of sub-schemas applies to one value.

    Raises:
        SchemaProblem: a sub-schema applies to the same value again and again, or too many apply.
    """
    edges = _edges(tree, {IN_PLACE})
    try:
        order = list(TopologicalSorter(edges).static_order())
    except CycleError as exc:
        detail = "refers to itself for the same value, so that validation would never end"
        raise schema_unsafe(exc.args[1][0].path, detail) from exc
    cost: dict[SchemaNode, int] = {}
    height: dict[SchemaNode, int] = {}
    for node in order:
        targets = edges.get(node, [])
        cost[node] = 1 + node.repeats * sum(cost[each] for each in targets)
        height[node] = 1 + max((height[each] for each in targets), default=0)
        if cost[node] > limits.fan_out:
            detail = f"to one value, more than the {limits.fan_out} of SCHEMA_MAX_FAN_OUT"
            raise schema_unsafe(node.path, f"applies {cost[node]} sub-schemas {detail}")
        if height[node] > _LONGEST_CHAIN:
            detail = f"applies more than {_LONGEST_CHAIN} nested sub-schemas to one value"
            raise schema_unsafe(node.path, detail)


def unrolled_size(tree: SchemaTree) -> float:
    """Return the number of sub-schemas after each reference is replaced by its target.

    It is infinite for a recursive schema.
    """
    edges = _edges(tree, _APPLIED)
    inner = {node: [each for each in targets if each in edges] for node, targets in edges.items()}
    size: dict[SchemaNode, float] = {}
    try:
        for node in TopologicalSorter(inner).static_order():
            leaves = len(edges[node]) - len(inner[node])
            size[node] = 1 + node.repeats * (leaves + sum(size[each] for each in inner[node]))
    except CycleError:
        return math.inf
    return size.get(tree.root, 1)


def nodes_on_cycles(tree: SchemaTree) -> set[SchemaNode]:
    """Return the nodes on a cycle, and those on a path between two cycles."""
    edges = _edges(tree, _APPLIED)
    forward: Edges = {
        node: [each for each in targets if each in edges] for node, targets in edges.items()
    }
    backward: Edges = {node: [] for node in forward}
    for node, targets in forward.items():
        for target in targets:
            backward[target].append(node)
    return _without_dead_ends(forward, backward) & _without_dead_ends(backward, forward)


def _edges(tree: SchemaTree, parts: set[str]) -> Edges:
    """Return the edges to referenced nodes and to children that apply to one of the parts.

    Nodes without such an edge are left out.
    """
    edges = {}
    for node in tree.nodes:
        if node.children or node.references:
            children = [child for applies_to, child in node.children if applies_to in parts]
            if targets := children + node.references:
                edges[node] = targets
    return edges


def _without_dead_ends(forward: Edges, backward: Edges) -> set[SchemaNode]:
    """Return the nodes that remain after nodes without an outgoing edge are removed repeatedly."""
    outgoing = {node: len(targets) for node, targets in forward.items()}
    dead_ends = [node for node, count in outgoing.items() if count == 0]
    while dead_ends:
        dead_end = dead_ends.pop()
        del outgoing[dead_end]
        for node in backward[dead_end]:
            outgoing[node] -= 1
            if outgoing[node] == 0:
                dead_ends.append(node)
    return set(outgoing)


# Each error of an alternative contains a copy of the value that it is about.
_ALTERNATIVES = {"anyOf", "oneOf"}
_MOST_PAIRS = 20_000


Matching = Callable[[SchemaNode, Any], int]


class CostExceeded(Exception):
    """Validation takes more steps than allowed."""


def validation_cost(
    root: SchemaNode, value: Any, *, most: int, matching: Matching = lambda node, value: 0
) -> int:
    """Return how many steps validation takes, which is how often sub-schemas are applied.

    A step takes about 50 ns; listing the errors takes 100 times as long. The estimate is too high
    rather than too low. The steps can double with each level of the value although the schema is
    small: two alternatives, or `items` and `contains`, both apply to the same part. The validator
    remembers nothing between them. This function does, so that it takes at most one step for each
    pair of a sub-schema and a part of the value.

    Args:
        matching: returns the steps that the patterns directly in a node take for a part.

    Raises:
        CostExceeded: validation takes more than `most` steps.
    """
    try:
        return _CostCounter(most, matching).steps(root, value)
    except RecursionError as exc:
        raise CostExceeded from exc


class _CostCounter:
    def __init__(self, most: int, matching: Matching) -> None:
        self._most = most
        self._matching = matching
        self._most_pairs = min(most, _MOST_PAIRS)
        self._steps: dict[tuple[int, int], int] = {}
        self._sizes: dict[int, int] = {}

    def steps(self, node: SchemaNode, value: Any) -> int:
        pair = (id(node), id(value))
        if pair not in self._steps:
            self._steps[pair] = self._count_steps(node, value)
            if self._steps[pair] > self._most or len(self._steps) > self._most_pairs:
                raise CostExceeded
        return self._steps[pair]

    def _count_steps(self, node: SchemaNode, value: Any) -> int:
        total = self._matching(node, value)
        total += sum(self.steps(each, value) for each in node.references)
        for applies_to, child in node.children:
            total += sum(self.steps(child, part) for part in _parts(applies_to, child, value))
        if not _ALTERNATIVES.isdisjoint(node.keywords):
            total += 4 * self._size(value)
        return 1 + node.repeats * total

    def _size(self, value: Any) -> int:
        """Return the number of values in the value, itself included."""
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._sizes:
            inner = value.values() if isinstance(value, dict) else value
            self._sizes[id(value)] = 1 + sum(map(self._size, inner))
        return self._sizes[id(value)]


def _parts(applies_to: str, child: SchemaNode, value: Any) -> list[Any]:
    """Return the parts of the value to which the sub-schema applies, too many rather than few."""
    if applies_to == IN_PLACE:
        return [value]
    if applies_to == ITEMS and isinstance(value, list):
        return value
    if isinstance(value, dict) and applies_to == PROPERTY_NAMES:
        return list(value)
    if isinstance(value, dict) and applies_to == PROPERTY_VALUES:
        if child.path[-2:-1] == ("properties",):
            name = child.path[-1]
            return [value[name]] if name in value else []
        return list(value.values())
    return []
