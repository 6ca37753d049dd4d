"""Metrics: the page that Prometheus scrapes."""

from __future__ import annotations

from flask import Blueprint, Response, request

from mes.api.auth import REFUSALS, auth
from mes.api.promises import promises
from mes.api.services import services
from mes.config.api_keys import METRICS

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
@promises(
    {kind: {"type": "string"} for kind in ("text/plain", "application/openmetrics-text")},
    scope=METRICS,
    raises=REFUSALS,
)
def show() -> Response:
    """All metrics; without a key where METRICS_OPEN says so."""
    is_open = services().settings.metrics_open
    return _page() if is_open else auth.login_required(role=METRICS)(_page)()


def _page() -> Response:
    page, media_type = services().metrics.page(request.headers.get("Accept", ""))
    return Response(page, content_type=media_type)
