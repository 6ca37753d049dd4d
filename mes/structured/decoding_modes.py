"""Decoding modes: the effect of a schema in the runtime's grammar, and the modes that suit it.

llama.cpp, which Ollama uses, converts the schema into a grammar. The conversion leaves most
keywords out, refuses some schemas, and excludes valid answers of others. A few schemas crash the
converter or keep it busy for ever. MES cannot see which engine a runtime uses, so each answer is
validated in any case, and this module only chooses the mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mes.domain import KeywordSupport
from mes.structured.cost import nodes_on_cycles
from mes.structured.llama_grammar import (
    DISTORTED,
    ENFORCED,
    EXCLUDED,
    FATAL,
    IGNORED,
    convert_keywords,
    converted_children,
    optional_properties,
)
from mes.structured.messages import json_pointer, shorten
from mes.structured.schema_tree import Path, SchemaNode, SchemaTree

GRAMMAR = "grammar"
JSON = "json"
PROMPT = "prompt"

# 250 optional properties in one object take the converter 0.9 s, 8 times 500 more than 6 s.
_MOST_SQUARES = 40_000


class GrammarFinding(NamedTuple):
    """The effect of one keyword of one sub-schema in the grammar."""

    path: Path
    keyword: str
    effect: str
    reason: str

    @property
    def pointer(self) -> str:
        return shorten(json_pointer(self.path))

    @property
    def is_notable(self) -> bool:
        return self.effect != ENFORCED


@dataclass(frozen=True)
class GrammarReport:
    """The effect of each keyword in the grammar; `allows_objects` if an object can be valid."""

    findings: tuple[GrammarFinding, ...]
    allows_objects: bool

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """The modes that suit the schema, the strictest first.

        - `grammar`: decoding is constrained to the schema.
        - `json`: decoding is constrained to any JSON object; the prompt contains the schema.
        - `prompt`: decoding is free; the prompt contains the schema.
        """
        harmful = any(each.effect in (FATAL, EXCLUDED) for each in self.findings)
        suitable = {GRAMMAR: not harmful, JSON: self.allows_objects, PROMPT: True}
        return tuple(mode for mode in suitable if suitable[mode])

    @cached_property
    def support_with_grammar(self) -> KeywordSupport:
        """The keywords that are enforced everywhere, and those that are ignored somewhere."""
        ignored = self._keywords(IGNORED)
        return KeywordSupport(
            tuple(sorted(self._keywords(ENFORCED) - ignored)), tuple(sorted(ignored))
        )

    @cached_property
    def support_without_grammar(self) -> KeywordSupport:
        """The same without a grammar, which means that all keywords are ignored."""
        return KeywordSupport((), tuple(sorted(self._keywords(ENFORCED) | self._keywords(IGNORED))))

    def _keywords(self, effect: str) -> set[str]:
        return {each.keyword for each in self.findings if each.effect == effect}


def grammar_report(tree: SchemaTree) -> GrammarReport:
    """Return the effects of the schema in a grammar, from the facts known of llama.cpp."""
    findings = (*_keyword_findings(tree.root), *_crashes(tree), *_delays(tree))
    return GrammarReport(findings, _allows_objects(tree.root))


def _keyword_findings(root: SchemaNode) -> Iterator[GrammarFinding]:
    """Yield the findings of all sub-schemas that the converter reads."""
    seen, stack = {root}, [(root, True)]
    while stack:
        node, is_needed = stack.pop()
        for keyword, effect, reason in convert_keywords(node):
            # No valid answer is left if the grammar forbids a part that each of them needs.
            excludes_all = is_needed and effect == DISTORTED
            yield GrammarFinding(node.path, keyword, EXCLUDED if excludes_all else effect, reason)
        for child in reversed(converted_children(node)):
            if child not in seen:
                seen.add(child)
                stack.append((child, is_needed and _needs(node, child)))


def _needs(node: SchemaNode, child: SchemaNode) -> bool:
    """Return whether each value valid under `node` contains a value valid under `child`."""
    if child in node.references:
        return True
    keyword, *rest = child.path[len(node.path) :]
    required = node.keywords.get("required", ())
    return keyword == "allOf" or (keyword == "properties" and rest[0] in required)


def _crashes(tree: SchemaTree) -> Iterator[GrammarFinding]:
    """Yield the recursions through allOf, which overflow the converter's stack."""
    cyclic = nodes_on_cycles(tree)
    for node in cyclic:
        if any(each in cyclic for each in _children_under(node, "allOf")):
            yield GrammarFinding(node.path, "allOf", FATAL, "is part of a recursion")


def _delays(tree: SchemaTree) -> Iterator[GrammarFinding]:
    """Yield a finding if the conversion takes seconds because of many optional properties."""
    squares = sum(optional_properties(node) ** 2 for node in tree.nodes)
    if squares > _MOST_SQUARES:
        reason = "so many are optional that the runtime's conversion takes seconds"
        yield GrammarFinding((), "properties", FATAL, reason)


def _children_under(node: SchemaNode, keyword: str) -> list[SchemaNode]:
    depth = len(node.path)
    return [child for _, child in node.children if child.path[depth : depth + 1] == (keyword,)]


def _allows_objects(node: SchemaNode) -> bool:
    """Return whether an object can be valid. JSON mode, which writes objects, is useless if not."""
    types = node.keywords.get("type", "object")
    if types != "object" and "object" not in types:
        return False
    if "enum" in node.keywords or "const" in node.keywords:
        values = node.keywords.get("enum", [node.keywords.get("const")])
        return any(isinstance(value, dict) for value in values)
    alternatives = [*_children_under(node, "anyOf"), *_children_under(node, "oneOf")]
    needed = [*node.references, *_children_under(node, "allOf")]
    return all(map(_allows_objects, needed)) and (
        not alternatives or any(map(_allows_objects, alternatives))
    )
