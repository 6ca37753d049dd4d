"""Screening: what a schema must pass before a token is spent on it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from mes.structured.dialects import dialect, refuse_what_breaks_it
from mes.structured.limits import Limits
from mes.structured.outline import Outline
from mes.structured.paths import refuse_endless
from mes.structured.refusals import invalid, unsafe
from mes.structured.wording import VALUE


def screen(document: dict[str, Any], limits: Limits) -> Outline:
    """The schema's outline. Raises SchemaInvalid, SchemaUnsafe; nothing is fetched.

    The size comes first and what costs most last, so that a refusal is never dear.
    """
    address = dialect(document)
    outline = Outline(document, limits, address)
    refuse_what_breaks_it(document)
    outline.follow_references()
    refuse_endless(outline, limits)
    return outline


def compiled(document: dict[str, Any]) -> jsonschema_rs.Validator:
    """The judge: it asserts `format`, takes linear time for any pattern and fetches nothing.

    Raises SchemaInvalid, and SchemaUnsafe for a pattern that takes more than linear time.
    """
    try:
        return jsonschema_rs.validator_for(
            document,
            retriever=_fetch_nothing,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            mask=VALUE,
        )
    except jsonschema_rs.ValidationError as exc:
        raise _refusal(exc) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise invalid((), str(exc).partition("\n")[0]) from exc


def _refusal(error: jsonschema_rs.ValidationError) -> Exception:
    path, pattern = error.instance_path, error.instance
    if error.kind.name == "format" and isinstance(pattern, str):
        if _compiles_with_backtracking(pattern):
            return unsafe(path, "uses look-around or a back-reference; rewrite it without")
        return invalid(path, "is not a regular expression")
    return invalid(path, error.message)


def _compiles_with_backtracking(pattern: str) -> bool:
    options = jsonschema_rs.FancyRegexOptions()
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
    except ValueError:
        return False
    return True


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("references must stay inside the schema")
