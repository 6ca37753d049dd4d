"""Structured output: schemas checked before they cost anything, answers judged by them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema
import jsonschema_rs
from cachetools import LRUCache, cached

from mes.domain import Judgement, Violation
from mes.errors import Mistake, SchemaInvalid, SchemaUnsafe
from mes.strictjson import NotJson, parse

_MOST_ERRORS = 20
_LONGEST_DETAIL = 200
_DIALECTS: dict[str, Any] = {
    str(dialect.ID_OF(dialect.META_SCHEMA)).removesuffix("#"): dialect
    for dialect in (
        jsonschema.Draft4Validator,
        jsonschema.Draft6Validator,
        jsonschema.Draft7Validator,
        jsonschema.Draft201909Validator,
        jsonschema.Draft202012Validator,
    )
}
_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_BEGINNING = re.compile(r"[\[{]")
# How many places in prose to try as the beginning of the answer.
_MOST_BEGINNINGS = 32


@dataclass(frozen=True)
class Schema:
    """A JSON Schema that can be trusted to judge answers, and the one judge of them.

    `sha256` is of the schema's compact text in its own order of keys: the runtime writes an
    object's properties in that order, so two orders are two experiments.
    """

    document: Mapping[str, Any]
    text: str
    sha256: str
    validator: Any

    @property
    def instruction(self) -> str:
        """What to tell a model that cannot be held to the schema while it writes."""
        return f"Answer only with JSON that satisfies this JSON Schema:\n{self.text}"

    def judge(self, text: str, finish_reason: str) -> Judgement:
        """The verdict: valid, not_json, schema_violation, truncated or empty.

        The whole schema is asserted, `format` included, whatever the runtime has enforced.
        """
        if not text.strip():
            return Judgement("empty", errors=(Violation("", "", "the model answered nothing"),))
        judgement = self._judge_whole(text)
        if finish_reason == "length" and not (judgement.valid and _is_closed(judgement.parsed)):
            cut = Violation("", "", "the answer was cut off at max_tokens")
            return Judgement("truncated", errors=(cut, *judgement.errors))
        return judgement

    def _judge_whole(self, text: str) -> Judgement:
        try:
            value = extract(text)
        except NotJson as exc:
            return Judgement("not_json", errors=(Violation("", "", _short(str(exc))),))
        errors = tuple(self._violations(value))
        return Judgement("schema_violation", errors=errors) if errors else Judgement("valid", value)

    def _violations(self, value: Any) -> Iterator[Violation]:
        for error in islice(self.validator.iter_errors(value), _MOST_ERRORS):
            keyword = next((str(k) for k in reversed(error.schema_path)), "")
            yield Violation(pointer(error.instance_path), keyword, _short(error.message))


def check(document: Mapping[str, Any]) -> Schema:
    """The schema, ready to judge by. Raises SchemaInvalid, SchemaUnsafe; nothing is fetched."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as exc:
        raise _unsafe("is nested too deeply") from exc
    return _check(text)


@cached(LRUCache(maxsize=256), lock=threading.Lock())
def _check(text: str) -> Schema:
    document = json.loads(text)
    _check_against_meta_schema(document)
    try:
        validator = jsonschema_rs.validator_for(
            document,
            retriever=_fetch_nothing,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except (ValueError, RecursionError) as exc:
        raise _invalid((), str(exc).partition("\n")[0]) from exc
    return Schema(document, text, hashlib.sha256(text.encode()).hexdigest(), validator)


def _check_against_meta_schema(document: dict[str, Any]) -> None:
    try:
        _dialect(document).check_schema(document)
    except jsonschema.SchemaError as exc:
        raise _invalid(exc.absolute_path, exc.message) from exc
    except RecursionError as exc:
        raise _unsafe("is nested too deeply") from exc


def _dialect(document: dict[str, Any]) -> Any:
    if "$schema" not in document:
        return jsonschema.Draft202012Validator
    dialect = _DIALECTS.get(str(document["$schema"]).removesuffix("#"))
    if dialect is None:
        raise _invalid(["$schema"], "names a dialect other than draft 4 to 2020-12; leave it out")
    return dialect


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("references must stay inside the schema")


def extract(text: str) -> Any:
    """The JSON value in a model's answer: the whole text, or in a Markdown fence, or in prose.

    Raises NotJson, with what is wrong with the text as a whole.
    """
    try:
        return parse(text.strip().lstrip("\ufeff"))
    except NotJson as exc:
        for candidate in _candidates(text):
            try:
                return parse(candidate)
            except NotJson:
                continue
        raise exc


def _candidates(text: str) -> Iterator[str]:
    for fenced in _FENCE.finditer(text):
        yield fenced[1]
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(_MOST_BEGINNINGS):
        found = _BEGINNING.search(text, position)
        if found is None:
            return
        position = found.end()
        try:
            _, end = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        yield text[found.start() : end]
        position = end


def pointer(path: Any) -> str:
    """A path into a document as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _is_closed(value: Any) -> bool:
    # A number that ends where the tokens ended may have had more digits to come.
    return isinstance(value, str | dict | list | bool | None)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"


def _invalid(path: Any, problem: str) -> SchemaInvalid:
    where = pointer(["json_schema", *path])
    return SchemaInvalid(
        f"json_schema is not a valid JSON Schema: {_short(problem)}",
        mistakes=(Mistake(where, _short(problem)),),
    )


def _unsafe(problem: str) -> SchemaUnsafe:
    return SchemaUnsafe(
        f"json_schema {problem}; simplify it", mistakes=(Mistake("/json_schema", problem),)
    )
