"""The queue: where a waiting request stands, for whoever asks by its id."""

from __future__ import annotations

import time

from flask import Blueprint, Response

from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.describe import as_waiting
from mes.api.promises import promises
from mes.api.services import services
from mes.api.shapes import WaitingAnswer
from mes.errors import NotWaiting
from mes.scheduling.queue_estimate import queue_positions

bp = Blueprint("queue", __name__, url_prefix="/v1/queue")


@bp.get("/<request_id>")
@auth.login_required
@promises(WaitingAnswer, raises=(NotWaiting,))
def show(request_id: str) -> Response:
    """The position and the expected start of the request that was sent with this X-Request-ID."""
    own = services()
    for standing in queue_positions(
        own.coordinator.read(), time.monotonic(), own.coordinator.limits
    ):
        if standing.request == request_id:
            return answer(as_waiting(standing, own.catalog.current()))
    raise NotWaiting("no request with this X-Request-ID waits: it runs, has ended, or never came")
