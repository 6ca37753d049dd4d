"""Schemas: screened, compiled and remembered, ready to be shown to models and to judge answers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachetools import LRUCache, cached

from mes.domain import SCHEMA_PLACE, KeywordSupport, ValidationResult
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.structured import grammar
from mes.structured.judging import Judge
from mes.structured.limits import Limits
from mes.structured.outline import Outline
from mes.structured.paths import unrolled
from mes.structured.refusals import moved, unsafe
from mes.structured.screening import compiled, screen

_DEFAULT_LIMITS = Limits()


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
    outline: Outline
    judge_of: Judge

    @cached_property
    def report(self) -> grammar.Report:
        """What the runtime's grammar will make of the schema."""
        return grammar.report(self.outline)

    @property
    def modes(self) -> tuple[str, ...]:
        """How a model may be held to the schema, the strictest way first."""
        return self.report.modes

    def modes_for(self, *, constrain: bool) -> tuple[str, ...]:
        """The same where decoding may be constrained; else only in words."""
        return self.modes if constrain else (grammar.PROMPT,)

    def keywords(self, mode: str) -> KeywordSupport:
        """What the runtime enforces in this mode, and what it leaves to the model."""
        if mode == grammar.GRAMMAR:
            return self.report.under_grammar
        return self.report.under_no_grammar

    def judge(self, text: str, finish_reason: str) -> ValidationResult:
        """The verdict: valid, not_json, schema_violation, truncated or empty."""
        return self.judge_of.judge(text, finish_reason)


def check(
    document: Mapping[str, Any], limits: Limits = _DEFAULT_LIMITS, *, at: str = SCHEMA_PLACE
) -> Schema:
    """The schema, ready to judge by. Nothing is fetched.

    Raises SchemaInvalid and SchemaUnsafe, which point to `at`, where the caller has sent it.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as exc:
        raise moved(unsafe((), "is nested too deeply"), at) from exc
    try:
        return _check(text, limits)
    except (SchemaInvalid, SchemaUnsafe) as exc:
        raise moved(exc, at) from exc


# By the size of their texts: the longest schemas take a hundred times the memory of most, and what
# is remembered is walked by Python's garbage collector (2 MiB of texts: 130 ms).
@cached(
    LRUCache(maxsize=512 << 10, getsizeof=lambda schema: len(schema.text)), lock=threading.Lock()
)
def _check(text: str, limits: Limits) -> Schema:
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > limits.text_bytes:
        raise unsafe((), f"has {len(content)} bytes; at most {limits.text_bytes} may be")
    document = json.loads(text)
    outline = screen(document, limits)
    return Schema(
        document=document,
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        dialect=outline.dialect,
        outline=outline,
        judge_of=Judge(compiled(document), outline.root, unrolled(outline)),
    )
