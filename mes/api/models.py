"""Models: what may be run, and bringing it in and out of memory by hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from functools import partial
from typing import Any

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.operation_docs import LOAD_ERRORS, NDJSON, TURN_ERRORS, documented, lines_schema
from mes.api.request_log import request_log
from mes.api.response_schemas import (
    DoneAnswer,
    ErrorLine,
    ModelAnswer,
    ModelsAnswer,
    PullProgressLine,
    PullResultLine,
)
from mes.api.serializers import json_response, serialize_model, serialize_openai_model
from mes.api.services import Services, services
from mes.api.streaming import Documents, StreamingResponse
from mes.config.api_keys import ADMIN
from mes.domain import ModelSpec, PullProgress, normalise
from mes.errors import (
    MesError,
    ModelBusy,
    ModelNotFound,
    PullFailed,
    QueueFull,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)

bp = Blueprint("models", __name__, url_prefix="/v1/models")


@bp.get("")
@auth.login_required
@documented(ModelsAnswer)
def index() -> Response:
    """The configured models; readable by an OpenAI client too."""
    own = services()
    state, runtime_status, catalog = (
        own.coordinator.read(),
        own.runtime_status.current(),
        own.catalog.current(),
    )
    return json_response(
        {
            "object": "list",
            "data": [serialize_openai_model(spec) for spec in catalog.enabled],
            "models": [serialize_model(spec, state, runtime_status) for spec in catalog.models],
        }
    )


@bp.get("/<path:model_id>")
@auth.login_required
@documented(ModelAnswer, raises=(ModelNotFound,))
def show(model_id: str) -> Response:
    """One model, with what the runtime knows of it; null where it cannot be asked."""
    own = services()
    spec = own.catalog.current().get(model_id)
    described = serialize_model(spec, own.coordinator.read(), own.runtime_status.current())
    return json_response({**serialize_openai_model(spec), **described, **_from_runtime(spec, own)})


@bp.post("/<path:model_id>/load")
@auth.login_required(role=ADMIN)
@documented(DoneAnswer, raises=(ModelNotFound, *TURN_ERRORS))
def load(model_id: str) -> Response:
    """Load the model and wait until it is ready."""
    own = services()
    spec = own.catalog.current().get(model_id)
    with own.client() as client:
        own.scheduler.load(spec, client)
    return _done(spec, f"{spec.id} is loaded")


@bp.post("/<path:model_id>/unload")
@auth.login_required(role=ADMIN)
@documented(DoneAnswer, raises=(ModelNotFound, ModelBusy, QueueFull, *LOAD_ERRORS))
def unload(model_id: str) -> Response:
    """Let the model drain and unload it."""
    own = services()
    spec = own.catalog.current().get(model_id)
    with own.client() as client:
        own.scheduler.unload(spec, client)
    return _done(spec, f"{spec.id} is not loaded any more")


def _done(spec: ModelSpec, message: str) -> Response:
    return json_response({"success": True, "message": message, "model_id": spec.id})


def _from_runtime(spec: ModelSpec, own: Services) -> dict[str, Any]:
    pulled = own.runtime_status.current().pulled.get(spec.tag)
    try:
        card = own.runtime.card(spec.tag)
    except MesError:
        card = None
    return {
        "digest": pulled.digest if pulled else None,
        "quantization": card.quantization if card else None,
        "parameter_size": card.parameter_size if card else None,
        "context_length": card.context_length if card else None,
        "capabilities": list(card.capabilities) if card else None,
    }


# Pulls: models fetched onto the runtime's disk, told in lines while it lasts.

log = logging.getLogger(__name__)

pull_bp = Blueprint("pull", __name__, url_prefix="/v1/models")


@pull_bp.post("/<path:model_id>/pull", endpoint="create")
@auth.login_required(role=ADMIN)
@documented(
    {NDJSON: lines_schema(PullProgressLine, PullResultLine, ErrorLine)},
    raises=(ModelNotFound, QueueFull, PullFailed, RuntimeReplyInvalid, RuntimeUnavailable),
)
def pull_model(model_id: str) -> Response:
    """Pull the model: a line for each progress, the last one says what came of it."""
    own = services()
    spec = own.catalog.current().get(model_id)
    return StreamingResponse().response(_documents(spec, own, request_log().request_id))


def _name(spec: ModelSpec) -> str:
    # As it was written, where that is the tag: not every place that models come from folds case.
    return spec.id if normalise(spec.id) == spec.tag else spec.tag


def _documents(spec: ModelSpec, own: Services, request_id: str) -> Generator[Documents]:
    facts = {"model": spec.id, "request_id": request_id}
    deadline = time.monotonic() + own.settings.pull_timeout_seconds
    try:
        with own.client() as client:
            pull = partial(own.runtime.pull, _name(spec), deadline=deadline, client=client)
            # Not kept in a name, so that it is closed before its caller is forgotten.
            for progress in pull():
                yield [_as_progress(progress)]
    except MesError as exc:
        log.warning("pull_failed", extra={**facts, "code": exc.code, "reason": exc.detail})
        raise
    log.info("pulled", extra=facts)
    message = f"{spec.id} is pulled"
    yield [{"type": "result", "success": True, "message": message, "model_id": spec.id}]


def _as_progress(progress: PullProgress) -> dict[str, Any]:
    return {
        "type": "progress",
        "status": progress.status,
        "completed_bytes": progress.completed_bytes,
        "total_bytes": progress.total_bytes,
    }
