"""List, load, unload, pull and delete models."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from functools import partial

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.middleware import request_log
from mes.api.model_responses import (
    DoneAnswer,
    ModelAnswer,
    ModelReport,
    ModelsAnswer,
    PullProgressLine,
    PullResultLine,
)
from mes.api.operation_docs import LOAD_ERRORS, NDJSON, TURN_ERRORS, documented, lines_schema
from mes.api.response_fields import json_response
from mes.api.response_schemas import ErrorLine
from mes.api.services import Services, get_services
from mes.api.streaming import Documents, StreamingResponse
from mes.config.api_keys import ADMIN
from mes.domain import ModelCard, ModelSpec, normalise
from mes.errors import (
    MesError,
    ModelBusy,
    ModelNotFound,
    PullFailed,
    QueueFull,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)
from mes.scheduling.runtime_status import RuntimeStatus

log = logging.getLogger(__name__)

bp = Blueprint("models", __name__, url_prefix="/v1/models")
pull_bp = Blueprint("pull", __name__, url_prefix="/v1/models")


@bp.get("")
@auth.login_required
@documented(ModelsAnswer)
def index() -> Response:
    """List the models of the catalog.

    Clients of OpenAI's API can read the response too.
    """
    services = get_services()
    state, runtime_status = services.coordinator.read(), services.runtime_status.current()
    reports = [
        ModelReport(spec, state, runtime_status, _card_if_unknown(spec, services, runtime_status))
        for spec in services.catalog.current().models
    ]
    return json_response(ModelsAnswer.serialize(reports))


@bp.get("/<path:model_id>")
@auth.login_required
@documented(ModelAnswer, raises=(ModelNotFound,))
def show(model_id: str) -> Response:
    """Show one model.

    Fields that only the runtime knows are null if the runtime does not answer.
    """
    services = get_services()
    spec = services.catalog.current().get(model_id)
    report = ModelReport(
        spec, services.coordinator.read(), services.runtime_status.current(), _card(spec, services)
    )
    return json_response(ModelAnswer.serialize(report))


@bp.post("/<path:model_id>/load")
@auth.login_required(role=ADMIN)
@documented(DoneAnswer, raises=(ModelNotFound, *TURN_ERRORS))
def load(model_id: str) -> Response:
    """Load a model and wait until it is ready."""
    services = get_services()
    spec = services.catalog.current().get(model_id)
    with services.client() as client:
        services.scheduler.load(spec, client)
    return _done(spec, f"{spec.id} is loaded")


@bp.post("/<path:model_id>/unload")
@auth.login_required(role=ADMIN)
@documented(DoneAnswer, raises=(ModelNotFound, ModelBusy, QueueFull, *LOAD_ERRORS))
def unload(model_id: str) -> Response:
    """Unload a model after its running requests have ended."""
    services = get_services()
    spec = services.catalog.current().get(model_id)
    with services.client() as client:
        services.scheduler.unload(spec, client)
    return _done(spec, f"{spec.id} is not loaded any more")


@bp.delete("/<path:model_id>")
@auth.login_required(role=ADMIN)
@documented(DoneAnswer, raises=(ModelNotFound, ModelBusy, QueueFull, *LOAD_ERRORS))
def delete(model_id: str) -> Response:
    """Delete a model from the runtime's disk. It stays in the catalog and can be pulled again.

    A model that requests use or wait for is not deleted.
    """
    services = get_services()
    spec = services.catalog.current().get(model_id)
    with services.client() as client:
        services.model_deleter.delete(spec, client)
    log.info("deleted", extra={"model": spec.id})
    return _done(spec, f"{spec.id} is deleted")


def _done(spec: ModelSpec, message: str) -> Response:
    return json_response(DoneAnswer.build(success=True, message=message, model_id=spec.id))


def _card_if_unknown(
    spec: ModelSpec, services: Services, runtime_status: RuntimeStatus
) -> ModelCard | None:
    # The leader asks for the capabilities of a model within seconds of a start or a pull.
    pulled = runtime_status.pulled.get(spec.tag)
    is_unknown = pulled is not None and pulled.capabilities is None
    return _card(spec, services) if is_unknown and runtime_status.running else None


def _card(spec: ModelSpec, services: Services) -> ModelCard | None:
    try:
        return services.runtime.card(spec.tag)
    except MesError:
        return None


@pull_bp.post("/<path:model_id>/pull", endpoint="create")
@auth.login_required(role=ADMIN)
@documented(
    {NDJSON: lines_schema(PullProgressLine, PullResultLine, ErrorLine)},
    raises=(ModelNotFound, QueueFull, PullFailed, RuntimeReplyInvalid, RuntimeUnavailable),
)
def pull_model(model_id: str) -> Response:
    """Pull a model onto the runtime's disk.

    Sends a line for each progress; the last line is the result or an error.
    """
    services = get_services()
    spec = services.catalog.current().get(model_id)
    return StreamingResponse().response(_pull_lines(spec, services, request_log().request_id))


def _pull_lines(spec: ModelSpec, services: Services, request_id: str) -> Generator[Documents]:
    fields = {"model": spec.id, "request_id": request_id}
    deadline = time.monotonic() + services.settings.pull_timeout_seconds
    try:
        with services.client() as client:
            pull = partial(
                services.runtime.pull, _pull_name(spec), deadline=deadline, client=client
            )
            # Without a name for the iterator, it is closed before its client is released.
            for progress in pull():
                yield [PullProgressLine.serialize(progress)]
    except MesError as exc:
        log.warning("pull_failed", extra={**fields, "code": exc.code, "reason": exc.detail})
        raise
    log.info("pulled", extra=fields)
    message = f"{spec.id} is pulled"
    yield [PullResultLine.build(type="result", success=True, message=message, model_id=spec.id)]


def _pull_name(spec: ModelSpec) -> str:
    # The catalog's spelling where it names the same tag: some registries are case-sensitive.
    return spec.id if normalise(spec.id) == spec.tag else spec.tag
