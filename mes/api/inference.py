"""Inferences: the one of the present request, blocking or streaming, and `POST /v1/inference`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.inference_responses import (
    InferenceAnswer,
    InferenceOutcome,
    LoadingLine,
    QueuedLine,
    ResultLine,
    TextLine,
    serialize_event,
)
from mes.api.inference_schemas import InferenceRequestSchema
from mes.api.middleware import RequestLog, request_log
from mes.api.operation_docs import JSON, NDJSON, RUN_ERRORS, documented, lines_schema
from mes.api.request_body import request_body
from mes.api.response_fields import json_response
from mes.api.response_schemas import ErrorLine, TimingsSchema, UsageSchema
from mes.api.services import Services, get_services
from mes.api.streaming import Document, Documents, StreamingResponse
from mes.config.catalog import Catalog
from mes.domain import Event, Inference, InferenceRequest
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.inference import infer
from mes.streams import Stream

INFERENCE_ERRORS = (SchemaInvalid, SchemaUnsafe, *RUN_ERRORS)
LINES = lines_schema(QueuedLine, LoadingLine, TextLine, ResultLine, ErrorLine)

bp = Blueprint("inference", __name__, url_prefix="/v1")


@bp.post("/inference")
@auth.login_required
@request_body(InferenceRequestSchema())
@documented({JSON: InferenceAnswer, NDJSON: LINES}, raises=INFERENCE_ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference.

    Waits for the result. With `stream`, sends a line of JSON for each event, and the result or an
    error as the last line.
    """
    if request.stream:
        response_stream = StreamingResponse()
        return response_stream.response(_lines(request, response_stream))
    return json_response(InferenceAnswer.serialize(run_blocking(request)))


def _lines(request: InferenceRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    catalog = get_services().catalog.current()
    outcome = yield from run_streaming(request, serialize_event, response_stream, catalog)
    yield [ResultLine.serialize(outcome)]


def run_blocking(request: InferenceRequest) -> InferenceOutcome:
    """Run the inference and return its outcome."""
    services, log = begin_log(request)
    with services.client() as client:
        call = inference_call(request, services, log, services.catalog.current())
        inference = call(client=client)
    return _finish(inference, request, log)


def run_streaming(
    request: InferenceRequest,
    serialize: Callable[[Event], Document | None],
    response_stream: StreamingResponse,
    catalog: Catalog,
) -> Generator[Documents, None, InferenceOutcome]:
    """Run the inference, yield the documents of its events in batches, and return its outcome.

    `serialize` returns the document that reports an event; None for an event that is not reported.
    Documents that `response_stream` has sent already are not yielded. Closing the generator ends
    the inference.
    """
    services, log = begin_log(request)
    patience = services.settings.stream_write_timeout_seconds
    with services.client() as client:
        run = partial(inference_call(request, services, log, catalog), client=client)

        def work(emit: Callable[..., bool]) -> Inference:
            return run(emit=lambda *events: emit(*filter(None, map(serialize, events))))

        with closing(Stream(work, reader=response_stream, patience_seconds=patience)) as stream:
            yield from stream
    return _finish(stream.result, request, log)


def begin_log(request: InferenceRequest) -> tuple[Services, RequestLog]:
    """Add the model and the operation to the request's log line; return it and the services."""
    log = request_log()
    # The operation names of OpenTelemetry.
    operation = "chat" if request.messages else "text_completion"
    log.add_fields(model=request.model_id[:200], operation=operation)
    return get_services(), log


def inference_call(
    request: InferenceRequest, services: Services, log: RequestLog, catalog: Catalog
) -> Callable[..., Inference]:
    """Return `infer` with all arguments that the service determines.

    All parts of a response are made of one `catalog`: an edit meanwhile must not spoil an answer.
    """
    return partial(
        infer,
        request,
        catalog=catalog,
        schema_limits=services.schema_limits,
        scheduler=services.scheduler,
        runtime=services.runtime,
        runtime_status=services.known_runtime_status(),
        versions=services.versions,
        request_id=log.request_id,
    )


def _finish(inference: Inference, request: InferenceRequest, log: RequestLog) -> InferenceOutcome:
    outcome = InferenceOutcome(inference, log.request_id, ignored=request.ignored)
    log.add_fields(**log_fields(outcome))
    return outcome


def log_fields(outcome: InferenceOutcome) -> dict[str, Any]:
    """Return the fields of the log line that describe the outcome of one inference."""
    inference = outcome.inference
    fields = {
        "usage": UsageSchema.serialize(inference.usage),
        "timings": TimingsSchema.serialize(inference.timings),
        "finish_reason": outcome.reply.finish_reason,
    }
    if outcome.validation is None:
        return fields
    return {
        **fields,
        "verdict": outcome.validation.verdict,
        "attempts": len(inference.attempts),
        "first_verdict": inference.attempts[0].verdict,
        "mode": outcome.final.mode,
    }
