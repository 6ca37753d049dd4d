"""`POST /v1/inference` and `POST /v1/schemas/check`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from flask import Blueprint, Response

from mes import structured
from mes.api import execution
from mes.api.auth import auth
from mes.api.inference_responses import (
    FindingSchema,
    InferenceAnswer,
    LoadingLine,
    QueuedLine,
    ResultLine,
    SchemaCheckAnswer,
    TextLine,
    serialize_event,
)
from mes.api.operation_docs import JSON, NDJSON, documented, lines_schema
from mes.api.request_body import request_body
from mes.api.request_schemas import InferenceRequestSchema, SchemaCheckSchema
from mes.api.response_fields import Document, json_response
from mes.api.response_schemas import ErrorLine
from mes.api.services import get_services
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import InferenceRequest
from mes.errors import ModelNotFound, SchemaInvalid, SchemaUnsafe
from mes.structured import Schema

LINES = lines_schema(QueuedLine, LoadingLine, TextLine, ResultLine, ErrorLine)

bp = Blueprint("inference", __name__, url_prefix="/v1")
checks_bp = Blueprint("checks", __name__, url_prefix="/v1")


@bp.post("/inference")
@auth.login_required
@request_body(InferenceRequestSchema())
@documented({JSON: InferenceAnswer, NDJSON: LINES}, raises=execution.ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference.

    Waits for the result. With `stream`, sends a line of JSON for each event, and the result or an
    error as the last line.
    """
    if request.stream:
        response_stream = StreamingResponse()
        return response_stream.response(_lines(request, response_stream))
    return json_response(InferenceAnswer.serialize(execution.run_blocking(request)))


def _lines(request: InferenceRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    outcome = yield from execution.run_streaming(request, serialize_event, response_stream)
    yield [ResultLine.serialize(outcome)]


@checks_bp.post("/schemas/check", endpoint="check")
@auth.login_required
@request_body(SchemaCheckSchema())
@documented(SchemaCheckAnswer, raises=(ModelNotFound, SchemaInvalid, SchemaUnsafe))
def check_json_schema(body: dict[str, Any]) -> Response:
    """Check a JSON Schema without a generation.

    Runs the checks of an inference and gives the same errors. The response lists the keywords that
    the runtime would enforce and those that it would not.
    """
    services = get_services()
    model_id = body.get("model_id")
    spec = None if model_id is None else services.catalog.current().get(model_id)
    schema = structured.check_schema(body["json_schema"], services.schema_limits)
    modes = schema.modes_for(constrain=spec is None or spec.supports_json_mode)
    return json_response(_report(schema, modes))


def _report(schema: Schema, modes: tuple[str, ...]) -> Document:
    keywords = schema.keywords(modes[0])
    notable = [finding for finding in schema.report.findings if finding.is_notable]
    return SchemaCheckAnswer.build(
        success=True,
        dialect=schema.dialect,
        schema_sha256=schema.sha256,
        bytes=len(schema.text.encode()),
        subschemas=len(schema.tree.nodes),
        modes=modes,
        enforced=keywords.enforced,
        ignored=keywords.ignored,
        findings=[FindingSchema.serialize(finding) for finding in notable],
    )
