"""Inference: one generation, asked and answered, at once or in a stream."""

from __future__ import annotations

from collections.abc import Generator

from flask import Blueprint, Response

from mes.api import running
from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.dumps import dump_event
from mes.api.promises import JSON, NDJSON, lines_of, promises
from mes.api.schemas import InferenceRequestSchema
from mes.api.shapes import (
    ErrorLine,
    InferenceAnswer,
    LoadingLine,
    QueuedLine,
    ResultLine,
    TextLine,
)
from mes.api.streamed import Delivery, Documents
from mes.domain import InferenceRequest

LINES = lines_of(QueuedLine, LoadingLine, TextLine, ResultLine, ErrorLine)

bp = Blueprint("inference", __name__, url_prefix="/v1")


@bp.post("/inference")
@auth.login_required
@body(InferenceRequestSchema())
@promises({JSON: InferenceAnswer, NDJSON: LINES}, raises=running.ERRORS)
def create(request: InferenceRequest) -> Response:
    """Run one inference and wait for it, or tell how it goes."""
    if request.stream:
        delivery = Delivery()
        return delivery.response(_lines(request, delivery))
    return answer(running.answered(request))


def _lines(request: InferenceRequest, delivery: Delivery) -> Generator[Documents]:
    document = yield from running.happening(request, dump_event, delivery)
    yield [{"type": "result", **document}]
