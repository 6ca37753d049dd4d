"""Screening: what a schema must pass before a token is spent on it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from mes.structured.cost import refuse_endless_schema
from mes.structured.messages import VALUE, describe_violation, schema_invalid, schema_unsafe
from mes.structured.schema_tree import SchemaLimits, SchemaTree


def check_structure(document: dict[str, Any], limits: SchemaLimits) -> SchemaTree:
    """The schema's outline. Raises SchemaInvalid, SchemaUnsafe; nothing is fetched.

    The size comes first and what costs most last, so that a refusal is never dear.
    """
    address = dialect(document)
    outline = SchemaTree(document, limits, address)
    check_against_metaschema(document)
    outline.follow_references()
    refuse_endless_schema(outline, limits)
    return outline


def compile_validator(document: dict[str, Any]) -> jsonschema_rs.Validator:
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
        raise _compile_error(exc) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise schema_invalid((), str(exc).partition("\n")[0]) from exc


def _compile_error(error: jsonschema_rs.ValidationError) -> Exception:
    path, pattern = error.instance_path, error.instance
    if error.kind.name == "format" and isinstance(pattern, str):
        if _compiles_with_backtracking(pattern):
            return schema_unsafe(path, "uses look-around or a back-reference; rewrite it without")
        return schema_invalid(path, "is not a regular expression")
    return schema_invalid(path, error.message)


def _compiles_with_backtracking(pattern: str) -> bool:
    options = jsonschema_rs.FancyRegexOptions()
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
    except ValueError:
        return False
    return True


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("references must stay inside the schema")


# Dialects: which draft of JSON Schema a schema is written in, and whether it keeps to it.

NEWEST = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS = {
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    NEWEST,
}


def dialect(document: dict[str, Any]) -> str:
    """The dialect's address, without `#`; 2020-12 where none is named. Raises SchemaInvalid."""
    said = document.get("$schema", NEWEST)
    if isinstance(said, str) and said.removesuffix("#") in _DIALECTS:
        return said.removesuffix("#")
    raise schema_invalid(["$schema"], "names a dialect other than draft 4 to 2020-12; leave it out")


def check_against_metaschema(document: dict[str, Any]) -> None:
    """Raises SchemaInvalid where the dialect's own schema does not allow the document."""
    try:
        jsonschema_rs.meta.validate(document)
    except jsonschema_rs.ValidationError as exc:
        violation = describe_violation(exc)
        raise schema_invalid(exc.instance_path, violation.detail) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise schema_invalid((), str(exc).partition("\n")[0]) from exc
