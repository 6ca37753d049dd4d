"""Schemas: screened, compiled and remembered, ready to be shown to models and to judge answers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachetools import LRUCache, cached

from mes.domain import SCHEMA_POINTER, KeywordSupport, ToolCall, ValidationResult, Violation
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.structured import decoding_modes
from mes.structured.checks import check_structure, compile_validator
from mes.structured.cost import unrolled_size
from mes.structured.messages import schema_unsafe, with_pointer_prefix
from mes.structured.schema_tree import SchemaLimits, SchemaTree
from mes.structured.validation import Validator

_DEFAULT_LIMITS = SchemaLimits()


@dataclass(frozen=True)
class Schema:
    """A JSON Schema that can be trusted to judge answers, and the one judge of them.

    `sha256` is of the schema's compact text in its own order of keys: the runtime writes an
    object's properties in that order, so two orders are two experiments.
    """

    document: Mapping[str, Any]
    text: str
    sha256: str
    dialect: str
    outline: SchemaTree
    validator: Validator

    @cached_property
    def report(self) -> decoding_modes.GrammarReport:
        """What the runtime's grammar will make of the schema."""
        return decoding_modes.grammar_report(self.outline)

    @property
    def modes(self) -> tuple[str, ...]:
        """How a model may be held to the schema, the strictest way first."""
        return self.report.modes

    def modes_for(self, *, constrain: bool) -> tuple[str, ...]:
        """The same where decoding may be constrained; else only in words."""
        return self.modes if constrain else (decoding_modes.PROMPT,)

    def keywords(self, mode: str) -> KeywordSupport:
        """What the runtime enforces in this mode, and what it leaves to the model."""
        if mode == decoding_modes.GRAMMAR:
            return self.report.under_grammar
        return self.report.under_no_grammar

    def validate_answer(self, text: str, finish_reason: str) -> ValidationResult:
        """The verdict: valid, not_json, schema_violation, truncated or empty."""
        return self.validator.validate_answer(text, finish_reason)


def check_schema(
    document: Mapping[str, Any], limits: SchemaLimits = _DEFAULT_LIMITS, *, at: str = SCHEMA_POINTER
) -> Schema:
    """The schema, ready to judge by. Nothing is fetched.

    Raises SchemaInvalid and SchemaUnsafe, which point to `at`, where the caller has sent it.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as exc:
        raise with_pointer_prefix(schema_unsafe((), "is nested too deeply"), at) from exc
    try:
        return _check_text(text, limits)
    except (SchemaInvalid, SchemaUnsafe) as exc:
        raise with_pointer_prefix(exc, at) from exc


# By the size of their texts: the longest schemas take a hundred times the memory of most, and what
# is remembered is walked by Python's garbage collector (2 MiB of texts: 130 ms).
@cached(
    LRUCache(maxsize=512 << 10, getsizeof=lambda schema: len(schema.text)), lock=threading.Lock()
)
def _check_text(text: str, limits: SchemaLimits) -> Schema:
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > limits.text_bytes:
        raise schema_unsafe((), f"has {len(content)} bytes; at most {limits.text_bytes} may be")
    document = json.loads(text)
    outline = check_structure(document, limits)
    return Schema(
        document=document,
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        dialect=outline.dialect,
        outline=outline,
        validator=Validator(compile_validator(document), outline.root, unrolled_size(outline)),
    )


# Tools: their parameters screened like any schema, and a model's calls judged by them.


@dataclass(frozen=True)
class ToolSchemas:
    """The functions that a model may call, by their names."""

    schemas: Mapping[str, Schema]

    def validate_answer(self, call: ToolCall) -> ValidationResult:
        """Do the arguments fit the parameters? The verdict: valid or schema_violation."""
        schema = self.schemas.get(call.name)
        if schema is None:
            stranger = Violation("", "", f"there is no tool called {call.name[:100]}")
            return ValidationResult("schema_violation", errors=(stranger,))
        return schema.validate_answer(json.dumps(dict(call.arguments)), "stop")


def tool_schemas(tools: Sequence[Mapping[str, Any]], limits: SchemaLimits) -> ToolSchemas:
    """Raises SchemaInvalid and SchemaUnsafe, with pointers into the list of tools."""
    return ToolSchemas(
        {
            tool["function"]["name"]: check_schema(
                tool["function"].get("parameters", {}), limits, at=f"/tools/{n}/function/parameters"
            )
            for n, tool in enumerate(tools)
        }
    )
