"""Checked and compiled schemas, cached by their text."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cachetools import LRUCache, cached

from mes.domain import SCHEMA_POINTER, KeywordSupport, ValidationResult
from mes.structured.checks import check_structure, compile_validator
from mes.structured.count_limits import without_excessive_counts
from mes.structured.decoding_modes import (
    GRAMMAR,
    PROMPT,
    Grammar,
    GrammarFinding,
    GrammarReport,
    grammar_for,
)
from mes.structured.messages import SchemaProblem, schema_unsafe
from mes.structured.normalize import is_needed as normalization_is_needed
from mes.structured.normalize import normalize, original_path
from mes.structured.schema_tree import SchemaLimits, SchemaTree
from mes.structured.validation import Validator

_DEFAULT_LIMITS = SchemaLimits()


@dataclass(frozen=True)
class Schema:
    """A JSON Schema that has passed all checks, with its validator.

    `text` is the compact JSON text in the client's order of keys, and `sha256` its hash. The
    runtime writes the properties of an object in that order, so that two orders are two
    experiments. `document` is the normalized schema.
    """

    document: Mapping[str, Any]
    text: str
    sha256: str
    dialect: str
    tree: SchemaTree
    validator: Validator
    runtime: str | None = None

    @cached_property
    def grammar(self) -> Grammar:
        """The schema that the runtime gets, without the keywords that it refuses."""
        return grammar_for(self.tree, self.runtime)

    @cached_property
    def bounded_document(self) -> Mapping[str, Any]:
        """The document without counts that are too large for a runtime, which may be all of it."""
        return without_excessive_counts(self.tree)

    @cached_property
    def report(self) -> GrammarReport:
        """The effect of each keyword in the runtime's grammar, where the client wrote it."""
        report, document = self.grammar.report, json.loads(self.text)
        if document == self.document:
            return report
        return replace(report, findings=tuple(_as_written(x, document) for x in report.findings))

    @property
    def modes(self) -> tuple[str, ...]:
        """The decoding modes that suit the schema, the strictest first."""
        return self.report.modes

    def modes_for(self, *, constrain: bool) -> tuple[str, ...]:
        """Return `modes`, or only the prompt mode if decoding must not be constrained."""
        return self.modes if constrain else (PROMPT,)

    def keywords(self, mode: str) -> KeywordSupport:
        """Return which keywords the runtime enforces in this mode, and which it ignores."""
        if mode == GRAMMAR:
            return self.report.support_with_grammar
        return self.report.support_without_grammar

    def validate_answer(self, text: str, finish_reason: str) -> ValidationResult:
        """Return the verdict: valid, not_json, schema_violation, undecided, truncated or empty."""
        return self.validator.validate_answer(text, finish_reason)


def _as_written(found: GrammarFinding, document: Any) -> GrammarFinding:
    *path, keyword = original_path(document, (*found.path, found.keyword))
    return found._replace(path=tuple(path), keyword=str(keyword))


def check_schema(
    document: Mapping[str, Any],
    limits: SchemaLimits = _DEFAULT_LIMITS,
    *,
    at: str = SCHEMA_POINTER,
    runtime: str | None = None,
) -> Schema:
    """Return the checked and compiled schema. Nothing is fetched.

    Args:
        at: the JSON pointer of the schema in the request, the prefix of pointers in errors.
        runtime: name and version of the runtime that decodes under the schema.

    Raises:
        SchemaInvalid: the document is not a JSON Schema.
        SchemaUnsafe: validation could hang, leak or cost too much.
    """
    try:
        return _check_document(document, limits, runtime)
    except SchemaProblem as exc:
        raise exc.error_at(at, document) from exc


def _check_document(
    document: Mapping[str, Any], limits: SchemaLimits, runtime: str | None
) -> Schema:
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as exc:
        raise schema_unsafe((), "is nested too deeply") from exc
    return _check_text(text, limits, runtime)


# The cache is limited by the size of the texts: the longest schemas take a hundred times the
# memory of most, and Python's garbage collector walks all that is cached (2 MiB of texts: 130 ms).
@cached(
    LRUCache(maxsize=512 << 10, getsizeof=lambda schema: len(schema.text)), lock=threading.Lock()
)
def _check_text(text: str, limits: SchemaLimits, runtime: str | None) -> Schema:
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > limits.text_bytes:
        most = limits.text_bytes
        raise schema_unsafe((), f"has {len(content)} bytes; SCHEMA_MAX_BYTES allows {most}")
    document = json.loads(text)
    if normalization_is_needed(text):
        normalize(document, most=limits.subschemas)
    tree = check_structure(document, limits)
    return Schema(
        document=document,
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        dialect=tree.dialect,
        tree=tree,
        validator=compile_validator(tree),
        runtime=runtime,
    )
