"""Inference: one generation, asked and answered, at once or in a stream."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from flask import Blueprint, Response

from mes import structured
from mes.api import execution
from mes.api.auth import auth
from mes.api.operation_docs import JSON, NDJSON, documented, lines_schema
from mes.api.request_body import request_body
from mes.api.request_schemas import InferenceRequestSchema, SchemaCheckSchema
from mes.api.response_schemas import (
    ErrorLine,
    InferenceAnswer,
    LoadingLine,
    QueuedLine,
    ResultLine,
    SchemaCheckAnswer,
    TextLine,
)
from mes.api.serializers import json_response, serialize_event
from mes.api.services import services
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import InferenceRequest
from mes.errors import ModelNotFound, SchemaInvalid, SchemaUnsafe
from mes.structured import GrammarFinding, Schema

LINES = lines_schema(QueuedLine, LoadingLine, TextLine, ResultLine, ErrorLine)

bp = Blueprint("inference", __name__, url_prefix="/v1")


@bp.post("/inference")
@auth.login_required
@request_body(InferenceRequestSchema())
@documented({JSON: InferenceAnswer, NDJSON: LINES}, raises=execution.ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference and wait for it, or tell how it goes."""
    if request.stream:
        response_stream = StreamingResponse()
        return response_stream.response(_lines(request, response_stream))
    return json_response(execution.run_blocking(request))


def _lines(request: InferenceRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    document = yield from execution.run_streaming(request, serialize_event, response_stream)
    yield [{"type": "result", **document}]


# Checks: what MES and the runtime will make of a schema, without a generation.

checks_bp = Blueprint("checks", __name__, url_prefix="/v1")


@checks_bp.post("/schemas/check", endpoint="check")
@auth.login_required
@request_body(SchemaCheckSchema())
@documented(SchemaCheckAnswer, raises=(ModelNotFound, SchemaInvalid, SchemaUnsafe))
def check_json_schema(given: dict[str, Any]) -> Response:
    """Screen a schema as inference would; refused with the same problem"""
    own = services()
    model_id = given.get("model_id")
    spec = None if model_id is None else own.catalog.current().get(model_id)
    schema = structured.check_schema(given["json_schema"], own.schema_limits)
    return json_response(
        _report(schema, schema.modes_for(constrain=spec is None or spec.supports_json_mode))
    )


def _report(schema: Schema, modes: tuple[str, ...]) -> dict[str, Any]:
    keywords = schema.keywords(modes[0])
    return {
        "success": True,
        "dialect": schema.dialect,
        "schema_sha256": schema.sha256,
        "bytes": len(schema.text.encode()),
        "subschemas": len(schema.tree.nodes),
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
