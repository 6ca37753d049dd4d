"""Pulls: models fetched onto the runtime's disk, told in lines while it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import orjson
from flask import Blueprint, Response

from mes.api import problems
from mes.api.auth import auth
from mes.api.promises import lines_of, promises
from mes.api.requests import line
from mes.api.services import Services, services
from mes.api.shapes import PullErrorLine, PullProgressLine, PullResultLine
from mes.domain import ModelSpec, PullProgress, normalise
from mes.errors import (
    MesError,
    ModelNotFound,
    PullFailed,
    QueueFull,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)
from mes.keys import ADMIN

log = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"

bp = Blueprint("pull", __name__, url_prefix="/v1/models")


@bp.post("/<path:model_id>/pull")
@auth.login_required(role=ADMIN)
@promises(
    {NDJSON: lines_of(PullProgressLine, PullResultLine, PullErrorLine)},
    raises=(ModelNotFound, QueueFull, PullFailed, RuntimeReplyInvalid, RuntimeUnavailable),
)
def create(model_id: str) -> Response:
    """Pull the model: a line for each progress, the last one says what came of it."""
    own, request_id = services(), line().request_id
    spec = own.catalog.current().get(model_id)
    progress = _progress(spec, own)
    # Whatever is refused before the first line has a status, as everywhere else.
    first = list(islice(progress, 1))
    response = Response(
        map(_encoded, _documents(chain(first, progress), spec, request_id)),
        mimetype=NDJSON,
        # A proxy that gathers the answer would show no progress.
        headers={"X-Accel-Buffering": "no"},
    )
    response.call_on_close(progress.close)
    return response


def _progress(spec: ModelSpec, own: Services) -> Generator[PullProgress]:
    deadline = time.monotonic() + own.settings.pull_timeout_seconds
    with own.caller() as caller:
        yield from own.runtime.pull(_name(spec), deadline=deadline, caller=caller)


def _name(spec: ModelSpec) -> str:
    # As it was written, where that is the tag: not every place that models come from folds case.
    return spec.id if normalise(spec.id) == spec.tag else spec.tag


def _documents(
    progress: Iterable[PullProgress], spec: ModelSpec, request_id: str
) -> Iterator[dict[str, Any]]:
    facts = {"model": spec.id, "request_id": request_id}
    try:
        yield from map(_as_progress, progress)
    except MesError as exc:
        log.warning("pull_failed", extra={**facts, "code": exc.code, "reason": exc.detail})
        yield {**problems.describe(exc, request_id), "type": "error"}
        return
    log.info("pulled", extra=facts)
    message = f"{spec.id} is pulled"
    yield {"type": "result", "success": True, "message": message, "model_id": spec.id}


def _as_progress(progress: PullProgress) -> dict[str, Any]:
    return {
        "type": "progress",
        "status": progress.status,
        "completed_bytes": progress.completed_bytes,
        "total_bytes": progress.total_bytes,
    }


def _encoded(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
