"""Decoding modes: the effect of a schema in the runtime's grammar, and the modes that suit it.

llama.cpp, which Ollama uses, converts the schema into a grammar. The conversion leaves most
keywords out, refuses some schemas, and excludes valid answers of others. A few schemas crash the
converter or keep it busy for ever. LLGuidance, which the embedded runtime uses, enforces more
keywords and refuses fewer. Which engine Ollama uses for a model cannot be seen, so each answer is
validated in any case, and this module only chooses the mode and the schema that the runtime gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mes.domain import KeywordSupport
from mes.domain.json_pointer import json_pointer
from mes.structured import guidance_grammar, llama_grammar
from mes.structured.cost import nodes_on_cycles
from mes.structured.count_limits import excessive_counts
from mes.structured.grammar_copy import GrammarCopy
from mes.structured.grammar_effects import (
    CONTRADICTION,
    DISTORTED,
    ENFORCED,
    EXCLUDED,
    FATAL,
    IGNORED,
    OMITTED,
    Effects,
)
from mes.structured.llama_grammar import optional_properties
from mes.structured.messages import shorten
from mes.structured.schema_tree import Path, SchemaNode, SchemaTree

GRAMMAR = "grammar"
JSON = "json"
PROMPT = "prompt"
# Modes without a grammar or a schema in the prompt: the runtime offers tools, or nothing.
TOOLS = "tools"
FREE = "free"

# 250 optional properties in one object take the converter 0.9 s, 8 times 500 more than 6 s.
_MOST_SQUARES = 40_000
# Without a keyword another one may have an effect, and its repair a third one.
_MOST_ROUNDS = 4
# The beginning of the name of a runtime that uses LLGuidance.
_EMBEDDED = "mes-embedded"


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


Findings = Iterable[tuple[SchemaNode, GrammarFinding]]


class GrammarEngine(NamedTuple):
    """An engine that decodes under a grammar, by the functions that describe it."""

    convert_keywords: Callable[[SchemaNode], Effects]
    converted_children: Callable[[SchemaNode], list[SchemaNode]]
    fails_on: Callable[[SchemaTree], Findings]


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
        ignored = self._keywords(IGNORED) | self._keywords(OMITTED)
        return KeywordSupport(
            tuple(sorted(self._keywords(ENFORCED) - ignored)), tuple(sorted(ignored))
        )

    @cached_property
    def support_without_grammar(self) -> KeywordSupport:
        """The same without a grammar, which means that all keywords are ignored."""
        effects = (ENFORCED, IGNORED, OMITTED)
        return KeywordSupport((), tuple(sorted(set().union(*map(self._keywords, effects)))))

    def _keywords(self, effect: str) -> set[str]:
        return {each.keyword for each in self.findings if each.effect == effect}


@dataclass(frozen=True)
class Grammar:
    """The document that the runtime gets for a schema, and the effects of the schema in it."""

    document: Mapping[str, Any]
    report: GrammarReport


def grammar_for(tree: SchemaTree, runtime: str | None = None) -> Grammar:
    """Return the grammar of the schema: without the keywords that the runtime's engine refuses.

    Args:
        runtime: name and version of the runtime; Ollama's engine is assumed if it is unknown.
    """
    engine = _LLGUIDANCE if (runtime or "").startswith(_EMBEDDED) else _LLAMA_CPP
    allows_objects = _allows_objects(tree.root)
    omitted: list[GrammarFinding] = []
    names: dict[str, Path] = {}
    findings = _all_findings(tree, engine)
    for _ in range(_MOST_ROUNDS):
        copy = GrammarCopy(tree)
        left_out = [found for node, found in findings if copy.repair(node, *found[1:3])]
        rebuilt = copy.rebuilt_tree() if copy.is_changed else None
        if rebuilt is None:
            break
        omitted += [_omitted(found, names) for found in left_out]
        tree, names = rebuilt, {**names, **copy.definitions}
        findings = _all_findings(tree, engine)
    located = [each for _, each in findings]
    if names:
        located = [each._replace(path=_original(each.path, names)) for each in located]
    return Grammar(tree.document, GrammarReport((*omitted, *located), allows_objects))


def _all_findings(
    tree: SchemaTree, engine: GrammarEngine
) -> list[tuple[SchemaNode, GrammarFinding]]:
    return [*_excessive_counts(tree), *_keyword_findings(tree.root, engine), *engine.fails_on(tree)]


def _excessive_counts(tree: SchemaTree) -> Findings:
    # Whether the engine reads the keyword does not matter: which engine it is, is not certain.
    for node, keyword, reason in excessive_counts(tree):
        yield node, GrammarFinding(node.path, keyword, FATAL, reason)


def _omitted(found: GrammarFinding, names: Mapping[str, Path]) -> GrammarFinding:
    path = _original(found.path, names)
    return GrammarFinding(path, found.keyword, OMITTED, f"left out of the grammar: {found.reason}")


def _original(path: Path, names: Mapping[str, Path]) -> Path:
    """Return the path in the schema of a path in an added definition."""
    if path[:1] == ("$defs",) and (original := names.get(str(path[1]))) is not None:
        return (*original, *path[2:])
    return path


def _keyword_findings(root: SchemaNode, engine: GrammarEngine) -> Findings:
    """Yield the findings of all sub-schemas that the converter reads."""
    seen, stack = {root}, [(root, True)]
    while stack:
        node, is_needed = stack.pop()
        for keyword, effect, reason in engine.convert_keywords(node):
            found = GrammarFinding(node.path, keyword, _in_place(effect, is_needed), reason)
            yield node, found
        for child in reversed(engine.converted_children(node)):
            if child not in seen:
                seen.add(child)
                stack.append((child, is_needed and _needs(node, child)))


def _in_place(effect: str, is_needed: bool) -> str:
    # No valid answer is left if the grammar forbids a part that each of them needs.
    if is_needed and effect in (DISTORTED, CONTRADICTION):
        return EXCLUDED
    return ENFORCED if effect == CONTRADICTION else effect


def _needs(node: SchemaNode, child: SchemaNode) -> bool:
    """Return whether each value valid under `node` contains a value valid under `child`."""
    if child in node.references:
        return True
    keyword, *rest = child.path[len(node.path) :]
    required = node.keywords.get("required", ())
    return keyword == "allOf" or (keyword == "properties" and rest[0] in required)


def _failures_of_llama(tree: SchemaTree) -> Findings:
    """Yield what crashes llama.cpp's converter, or keeps it busy for seconds.

    Recursion through allOf overflows its stack. Its time grows with the square of the number of
    optional properties.
    """
    cyclic = nodes_on_cycles(tree)
    for node in cyclic:
        if any(each in cyclic for each in _children_under(node, "allOf")):
            yield node, GrammarFinding(node.path, "allOf", FATAL, "is part of a recursion")
    squares = sum(optional_properties(node) ** 2 for node in tree.nodes)
    if squares > _MOST_SQUARES:
        reason = "so many are optional that the runtime's conversion takes seconds"
        yield tree.root, GrammarFinding((), "properties", FATAL, reason)


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


_LLAMA_CPP = GrammarEngine(
    llama_grammar.convert_keywords, llama_grammar.converted_children, _failures_of_llama
)
_LLGUIDANCE = GrammarEngine(
    guidance_grammar.convert_keywords, guidance_grammar.converted_children, lambda tree: ()
)
