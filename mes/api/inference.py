"""Inference: one generation, asked and answered, at once or in a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

from flask import Blueprint, Response

from mes.api import ndjson
from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.delivery import Documents
from mes.api.dumps import dump, dump_event
from mes.api.promises import JSON, NDJSON, TURN_ERRORS, lines_of, promises
from mes.api.requests import Line, line
from mes.api.schemas import InferenceRequestSchema
from mes.api.services import Services, services
from mes.api.shapes import (
    ErrorLine,
    InferenceAnswer,
    LoadingLine,
    QueuedLine,
    ResultLine,
    TextLine,
)
from mes.domain import Caller, Inference, InferenceRequest
from mes.errors import (
    GenerationAborted,
    GenerationTimeout,
    ModelNotFound,
    PromptTooLong,
    SchemaInvalid,
    SchemaUnsafe,
)
from mes.inference import infer
from mes.stream import Stream

LINES = lines_of(QueuedLine, LoadingLine, TextLine, ResultLine, ErrorLine)
ERRORS = (
    ModelNotFound,
    SchemaInvalid,
    SchemaUnsafe,
    PromptTooLong,
    *TURN_ERRORS,
    GenerationAborted,
    GenerationTimeout,
)

bp = Blueprint("inference", __name__, url_prefix="/v1")


@bp.post("/inference")
@auth.login_required
@body(InferenceRequestSchema())
@promises({JSON: InferenceAnswer, NDJSON: LINES}, raises=ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference and wait for it, or tell how it goes."""
    own, said = services(), line()
    said.note(model=request.model_id[:200])
    if request.stream:
        return ndjson.stream(_events(request, own, said))
    with own.caller() as caller:
        inference = _inferring(request, own, said, caller)()
    return answer(_document(inference, said))


def _events(request: InferenceRequest, own: Services, said: Line) -> Generator[Documents]:
    patience = own.settings.stream_write_timeout_seconds
    with own.caller() as caller:
        work = _inferring(request, own, said, caller)
        with closing(Stream(work, reader=caller, patience_seconds=patience)) as stream:
            for events in stream:
                yield map(dump_event, events)
    yield [{"type": "result", **_document(stream.result, said)}]


def _inferring(
    request: InferenceRequest, own: Services, said: Line, caller: Caller
) -> Callable[..., Inference]:
    """The use case, with all that it needs."""
    return partial(
        infer,
        request,
        catalog=own.catalog.current(),
        schema_limits=own.schema_limits,
        scheduler=own.scheduler,
        runtime=own.runtime,
        runtime_version=own.sight.current().version,
        caller=caller,
        request_id=said.request_id,
    )


def _document(inference: Inference, said: Line) -> dict[str, Any]:
    document = dump(inference, said.request_id)
    said.note(**{name: document[name] for name in ("usage", "timings", "finish_reason")})
    if document["structured"]:
        told = ("verdict", "attempts", "first_verdict", "mode")
        said.note(**{name: document["structured"][name] for name in told})
    return document
