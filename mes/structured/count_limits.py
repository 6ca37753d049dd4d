"""Counts that would make the grammar of a schema too large for the memory of a runtime.

The facts are from measuring both engines. LLGuidance makes about five symbols for each item that an
array may have: 50,000 items take 1.5 s and 110 MB, 2,147,483,647 take all memory. llama.cpp makes a
rule for each item and each character: 500,000 characters take 1.6 s and 130 MB. Both engines add
the counts of nested arrays up; one that copies the inner arrays multiplies them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from mes.structured.grammar_copy import GrammarCopy, Schema
from mes.structured.grammar_effects import FATAL
from mes.structured.keywords import DEFINITION, most_repetitions, patterns
from mes.structured.schema_tree import SchemaNode, SchemaTree

_MOST = 10_000
_ITEMS = ("minItems", "maxItems")
# The most that the counts of a kind may be together, in the whole schema.
_MOST_TOGETHER = {
    _ITEMS: 20_000,
    ("minLength", "maxLength"): 200_000,
    ("minProperties", "maxProperties"): 20_000,
    ("minContains", "maxContains"): 20_000,
}
_MOST_NESTED = 1_000_000
_COUNTS = set(chain.from_iterable(_MOST_TOGETHER))


class ExcessiveCount(NamedTuple):
    """A count that must not reach a runtime, and the reason."""

    node: SchemaNode
    keyword: str
    reason: str


def excessive_counts(tree: SchemaTree) -> Iterator[ExcessiveCount]:
    """Yield the counts that are too large alone, together, or multiplied where arrays nest."""
    for keywords, most in _MOST_TOGETHER.items():
        yield from _too_large(tree, keywords, most)
    yield from _multiplied_too_large(tree)
    for node in tree.nodes:
        for (keyword, *_), pattern in patterns(node.keywords):
            if most_repetitions(pattern) > _MOST:
                yield ExcessiveCount(node, str(keyword), f"repeats a part over {_MOST} times")


def without_excessive_counts(tree: SchemaTree) -> Schema:
    """Return the document of the tree, or a copy without the counts that are too large."""
    copy = GrammarCopy(tree)
    for node, keyword, _ in excessive_counts(tree):
        copy.repair(node, keyword, FATAL)
    return copy.document if copy.is_changed else tree.document


def without_counts(schema: Any) -> Any:
    """Return a schema that could not be checked, without all counts and the largest patterns."""
    if isinstance(schema, list):
        return [without_counts(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: value if name in ("enum", "const") else without_counts(value)
        for name, value in schema.items()
        if not _is_count(name, value)
    }


def _is_count(name: str, value: Any) -> bool:
    # A property may have the name of such a keyword too: its value is a schema.
    if name in _COUNTS:
        return not isinstance(value, Mapping)
    return any(most_repetitions(each) > _MOST for _, each in patterns({name: value}))


def _too_large(tree: SchemaTree, keywords: tuple[str, str], most: int) -> Iterator[ExcessiveCount]:
    """Yield the counts over the limit for one, and the largest until the rest is within `most`."""
    counts = [(count, node, keyword) for keyword in keywords for count, node in _all(tree, keyword)]
    together: float = 0
    for count, node, keyword in sorted(counts, key=lambda each: each[0]):
        if count > _MOST:
            yield ExcessiveCount(node, keyword, f"is over {_MOST}")
        elif together + count > most:
            kind = " and ".join(keywords)
            yield ExcessiveCount(node, keyword, f"{kind} are over {most} in the whole schema")
        else:
            together += count


def _all(tree: SchemaTree, keyword: str) -> Iterator[tuple[float, SchemaNode]]:
    return ((node.keywords[keyword], node) for node in tree.nodes if keyword in node.keywords)


def _multiplied_too_large(tree: SchemaTree) -> Iterator[ExcessiveCount]:
    """Yield the counts of inner arrays whose product with those around them is too large.

    A reference is not followed: each engine makes a rule of its own for the target.
    """
    reason = f"is over {_MOST_NESTED} if multiplied by the counts of the arrays around it"
    seen = {tree.root}
    stack: list[tuple[SchemaNode, float]] = [(tree.root, 1)]
    while stack:
        node, around = stack.pop()
        factors = {each: node.keywords[each] for each in _ITEMS if each in node.keywords}
        fitting = [x for x in factors.values() if x <= _MOST and x * around <= _MOST_NESTED]
        for keyword, count in factors.items():
            if count <= _MOST and count * around > _MOST_NESTED:
                yield ExcessiveCount(node, keyword, reason)
        inner = around * max((1, *fitting))
        for applies_to, child in node.children:
            if child not in seen:
                seen.add(child)
                stack.append((child, 1 if applies_to == DEFINITION else inner))
