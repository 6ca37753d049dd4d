"""Pulls: models fetched onto the runtime's disk, told in lines while it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from functools import partial
from typing import Any

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.promises import NDJSON, lines_of, promises
from mes.api.requests import line
from mes.api.services import Services, services
from mes.api.shapes import ErrorLine, PullProgressLine, PullResultLine
from mes.api.streamed import Delivery, Documents
from mes.config.api_keys import ADMIN
from mes.domain import ModelSpec, PullProgress, normalise
from mes.errors import (
    MesError,
    ModelNotFound,
    PullFailed,
    QueueFull,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)

log = logging.getLogger(__name__)

bp = Blueprint("pull", __name__, url_prefix="/v1/models")


@bp.post("/<path:model_id>/pull")
@auth.login_required(role=ADMIN)
@promises(
    {NDJSON: lines_of(PullProgressLine, PullResultLine, ErrorLine)},
    raises=(ModelNotFound, QueueFull, PullFailed, RuntimeReplyInvalid, RuntimeUnavailable),
)
def create(model_id: str) -> Response:
    """Pull the model: a line for each progress, the last one says what came of it."""
    own = services()
    spec = own.catalog.current().get(model_id)
    return Delivery().response(_documents(spec, own, line().request_id))


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
