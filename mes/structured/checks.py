"""Checks that a schema must pass before a model is asked to follow it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from mes.structured.backtracking import BACKTRACKING, LINEAR, BacktrackingPatterns, compiles
from mes.structured.cost import check_validation_cost, unrolled_size
from mes.structured.messages import VALUE, SchemaProblem, describe_violation, schema_invalid
from mes.structured.normalize import DEFAULT_DIALECT, DRAFT_4
from mes.structured.schema_tree import SchemaLimits, SchemaTree
from mes.structured.validation import Validator

_DIALECTS = {
    DRAFT_4,
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    DEFAULT_DIALECT,
}


def check_structure(document: dict[str, Any], limits: SchemaLimits) -> SchemaTree:
    """Return the tree of the schema's sub-schemas. Nothing is fetched.

    The limits of size are checked first and the expensive checks last, so that a schema that is
    too large is rejected at little cost.

    Raises:
        SchemaProblem: the schema is invalid or unsafe.
    """
    tree = SchemaTree(document, limits, dialect(document))
    check_against_metaschema(document)
    tree.follow_references()
    check_validation_cost(tree, limits)
    return tree


def dialect(document: dict[str, Any]) -> str:
    """Return the address of the schema's dialect without `#`; 2020-12 if it names none.

    Raises:
        SchemaProblem: `$schema` is not the address of a supported dialect.
    """
    address = document.get("$schema", DEFAULT_DIALECT)
    if isinstance(address, str) and address.removesuffix("#") in _DIALECTS:
        return address.removesuffix("#")
    raise schema_invalid(["$schema"], "is not draft 4, 6, 7, 2019-09 or 2020-12; omit it")


def check_against_metaschema(document: dict[str, Any]) -> None:
    """Raise SchemaProblem if the meta-schema of the dialect does not allow the document."""
    try:
        jsonschema_rs.meta.validate(document)
    except jsonschema_rs.ValidationError as exc:
        violation = describe_violation(exc)
        raise schema_invalid(exc.instance_path, violation.detail) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise _first_line(exc) from exc


def compile_validator(tree: SchemaTree) -> Validator:
    """Return a validator that asserts `format` and fetches nothing.

    Patterns are matched in linear time, except those with look-around or back-references.

    Raises:
        SchemaProblem: the schema is invalid.
    """
    size = unrolled_size(tree)
    try:
        return Validator(_compile(tree.document, LINEAR), tree.root, size)
    except jsonschema_rs.ValidationError as exc:
        if not _is_pattern_with_backtracking(exc):
            raise _compile_problem(exc) from exc
    try:
        compiled = _compile(tree.document, BACKTRACKING)
    except jsonschema_rs.ValidationError as exc:
        raise _compile_problem(exc) from exc
    return Validator(compiled, tree.root, size, BacktrackingPatterns(tree.nodes))


def _compile(document: dict[str, Any], options: Any) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(
            document,
            retriever=_refuse_to_fetch,
            validate_formats=True,
            pattern_options=options,
            mask=VALUE,
        )
    except jsonschema_rs.ValidationError:
        raise
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise _first_line(exc) from exc


def _is_pattern_with_backtracking(error: jsonschema_rs.ValidationError) -> bool:
    if error.kind.name != "format" or not isinstance(error.instance, str):
        return False
    return compiles(error.instance, BACKTRACKING)


def _compile_problem(error: jsonschema_rs.ValidationError) -> SchemaProblem:
    if error.kind.name == "format" and isinstance(error.instance, str):
        return schema_invalid(error.instance_path, "is not a regular expression")
    return schema_invalid(error.instance_path, error.message)


def _first_line(exc: Exception) -> SchemaProblem:
    return schema_invalid((), str(exc).partition("\n")[0])


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError("references must stay inside the schema")
