"""Checks: what MES and the runtime will make of a schema, without a generation."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from mes import structured
from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.promises import promises
from mes.api.schemas import SchemaCheckSchema
from mes.api.services import services
from mes.api.shapes import SchemaCheckAnswer
from mes.errors import ModelNotFound, SchemaInvalid, SchemaUnsafe
from mes.structured import GrammarFinding, Schema

bp = Blueprint("checks", __name__, url_prefix="/v1")


@bp.post("/schemas/check")
@auth.login_required
@body(SchemaCheckSchema())
@promises(SchemaCheckAnswer, raises=(ModelNotFound, SchemaInvalid, SchemaUnsafe))
def check(given: dict[str, Any]) -> Response:
    """Screen a schema as inference would; refused with the same problem"""
    own = services()
    model_id = given.get("model_id")
    spec = None if model_id is None else own.catalog.current().get(model_id)
    schema = structured.check_schema(given["json_schema"], own.schema_limits)
    return answer(
        _report(schema, schema.modes_for(constrain=spec is None or spec.supports_json_mode))
    )


def _report(schema: Schema, modes: tuple[str, ...]) -> dict[str, Any]:
    keywords = schema.keywords(modes[0])
    return {
        "success": True,
        "dialect": schema.dialect,
        "schema_sha256": schema.sha256,
        "bytes": len(schema.text.encode()),
        "subschemas": len(schema.outline.places),
        "modes": modes,
        "enforced": keywords.enforced,
        "ignored": keywords.ignored,
        "findings": [_finding(each) for each in schema.report.findings if each.is_notable],
    }


def _finding(finding: GrammarFinding) -> dict[str, str]:
    return {
        "pointer": finding.pointer,
        "keyword": finding.keyword,
        "effect": finding.effect,
        "reason": finding.reason,
    }
