"""The grammar: what the runtime's constrained decoding will make of a schema.

llama.cpp, which Ollama asks, turns the schema into a grammar. It leaves most keywords out, refuses
some, forbids valid answers with others, and a few make it crash or never end. Which engine it is
cannot be seen from here, so the answer is validated in any case and this only chooses the mode.
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
    converted_below,
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
    """What becomes of one keyword at one place."""

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
    """What becomes of each keyword, and how a model may therefore be held to the schema."""

    findings: tuple[GrammarFinding, ...]
    takes_objects: bool

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """The strictest first.

        `grammar`: decoding is constrained to the schema; `json`: to some JSON object, and the
        schema is told in the prompt; `prompt`: the schema is told, no more.
        """
        harmful = any(each.effect in (FATAL, EXCLUDED) for each in self.findings)
        possible = {GRAMMAR: not harmful, JSON: self.takes_objects, PROMPT: True}
        return tuple(mode for mode in possible if possible[mode])

    @cached_property
    def under_grammar(self) -> KeywordSupport:
        """What the grammar enforces wherever it stands, and what it ignores somewhere."""
        ignored = self._keywords(IGNORED)
        return KeywordSupport(
            tuple(sorted(self._keywords(ENFORCED) - ignored)), tuple(sorted(ignored))
        )

    @cached_property
    def under_no_grammar(self) -> KeywordSupport:
        """Without a grammar all of them are left to the model."""
        return KeywordSupport((), tuple(sorted(self._keywords(ENFORCED) | self._keywords(IGNORED))))

    def _keywords(self, effect: str) -> set[str]:
        return {each.keyword for each in self.findings if each.effect == effect}


def grammar_report(outline: SchemaTree) -> GrammarReport:
    """What a runtime will make of the schema, from the facts known of llama.cpp."""
    findings = (*_findings(outline.root), *_crashes(outline), *_delays(outline))
    return GrammarReport(findings, _takes_objects(outline.root))


def _findings(root: SchemaNode) -> Iterator[GrammarFinding]:
    seen, waiting = {root}, [(root, True)]
    while waiting:
        place, is_needed = waiting.pop()
        for keyword, effect, reason in convert_keywords(place):
            # What no answer can do without, and what the grammar forbids, leaves no valid answer.
            is_hopeless = is_needed and effect == DISTORTED
            yield GrammarFinding(place.path, keyword, EXCLUDED if is_hopeless else effect, reason)
        for below in reversed(converted_below(place)):
            if below not in seen:
                seen.add(below)
                waiting.append((below, is_needed and _needs(place, below)))


def _needs(place: SchemaNode, below: SchemaNode) -> bool:
    """Does every value that fits the one hold something that fits the other?"""
    if below in place.references:
        return True
    keyword, *rest = below.path[len(place.path) :]
    required = place.keywords.get("required", ())
    return keyword == "allOf" or (keyword == "properties" and rest[0] in required)


def _crashes(outline: SchemaTree) -> Iterator[GrammarFinding]:
    """Recursion through allOf runs the converter out of its stack."""
    cyclic = nodes_on_cycles(outline)
    for place in cyclic:
        if any(each in cyclic for each in _components(place)):
            yield GrammarFinding(place.path, "allOf", FATAL, "is part of a recursion")


def _delays(outline: SchemaTree) -> Iterator[GrammarFinding]:
    """The grammar for optional properties takes seconds to make where there are many."""
    squares = sum(optional_properties(place) ** 2 for place in outline.places)
    if squares > _MOST_SQUARES:
        yield GrammarFinding(
            (), "properties", FATAL, "so many optional ones take the runtime seconds"
        )


def _components(place: SchemaNode) -> list[SchemaNode]:
    depth = len(place.path)
    return [each for _, each in place.below if each.path[depth : depth + 1] == ("allOf",)]


def _takes_objects(place: SchemaNode) -> bool:
    """May an object be valid? Where none may, JSON mode, which writes objects, is of no use."""
    said = place.keywords.get("type", "object")
    if said != "object" and "object" not in said:
        return False
    if "enum" in place.keywords or "const" in place.keywords:
        values = place.keywords.get("enum", [place.keywords.get("const")])
        return any(isinstance(value, dict) for value in values)
    alternatives = [
        each
        for _, each in place.below
        if each.path[len(place.path) : len(place.path) + 1] in (("anyOf",), ("oneOf",))
    ]
    needed = [*place.references, *_components(place)]
    return all(map(_takes_objects, needed)) and (
        not alternatives or any(map(_takes_objects, alternatives))
    )
