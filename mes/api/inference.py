"""Inference: one generation, asked and answered."""

from __future__ import annotations

from flask import Blueprint, Response

from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.dumps import dump
from mes.api.promises import TURN_ERRORS, promises
from mes.api.requests import line
from mes.api.schemas import InferenceRequestSchema
from mes.api.services import services
from mes.api.shapes import InferenceAnswer
from mes.domain import InferenceRequest
from mes.errors import (
    GenerationAborted,
    GenerationTimeout,
    ModelNotFound,
    PromptTooLong,
    SchemaInvalid,
    SchemaUnsafe,
)
from mes.inference import infer

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
@promises(InferenceAnswer, raises=ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference and wait for it."""
    own, said = services(), line()
    said.note(model=request.model_id[:200])
    with own.caller() as caller:
        inference = infer(
            request,
            catalog=own.catalog.current(),
            schema_limits=own.schema_limits,
            scheduler=own.scheduler,
            runtime=own.runtime,
            runtime_version=own.sight.current().version,
            caller=caller,
            request_id=said.request_id,
        )
    document = dump(inference, said.request_id)
    said.note(**{name: document[name] for name in ("usage", "timings", "finish_reason")})
    if document["structured"]:
        told = ("verdict", "attempts", "first_verdict", "mode")
        said.note(**{name: document["structured"][name] for name in told})
    return answer(document)
