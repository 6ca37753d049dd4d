"""Health, readiness, status, queue positions and metrics."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from flask import Blueprint, Response, request

from mes import __version__
from mes.api.auth import AUTH_ERRORS, auth, has_valid_key
from mes.api.model_responses import ModelReport, ModelState
from mes.api.operation_docs import documented
from mes.api.response_fields import json_response
from mes.api.services import Services, get_services
from mes.api.status_responses import (
    HealthAnswer,
    QueueEntry,
    ReadyAnswer,
    StatusAnswer,
    StuckModel,
    WaitingAnswer,
)
from mes.config.api_keys import METRICS
from mes.errors import NotWaiting
from mes.metrics import gauges
from mes.scheduling import runtime_places, stuck_models

bp = Blueprint("health", __name__)
queue_bp = Blueprint("queue", __name__, url_prefix="/v1/queue")
metrics_bp = Blueprint("metrics", __name__)

_SHUTTING_DOWN = "it is shutting down"
# The checks of /ready for clients without a key.
_FAILURES = {
    "runtime": "the runtime cannot be used",
    "catalog": "the latest edit of the catalog is invalid",
    "state": "the state directory cannot be used",
    "memory": "no place in memory can become free",
}
_FOR_THE_REASON = "send an API key for the reason"


@bp.get("/health")
@documented(HealthAnswer)
def health() -> Response:
    """Check that the process responds."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json_response(HealthAnswer.build(status="healthy", timestamp=now, version=__version__))


@bp.get("/ready")
@documented(ReadyAnswer, statuses=(200, 503))
def ready() -> Response:
    """Check that requests can be served.

    With status 503, the checks that are not `ok` name the cause: with a key of scope `inference`,
    also the paths, addresses and models concerned.
    """
    services = get_services()
    checks = _checks(services)
    is_ready = all(check == "ok" for check in checks.values())
    if not is_ready and not has_valid_key():
        checks = {name: _without_details(name, check) for name, check in checks.items()}
    return json_response(
        ReadyAnswer.build(
            status="ready" if is_ready else "not_ready",
            **checks,
            runtime_places=runtime_places.problem(services.coordinator.read()) or "ok",
        ),
        200 if is_ready else 503,
    )


@bp.get("/v1/status")
@auth.login_required
@documented(StatusAnswer)
def status() -> Response:
    """Show the state of the service, its models and its queues."""
    services = get_services()
    state, runtime_status, catalog = (
        services.coordinator.read(),
        services.runtime_status.current(),
        services.catalog.current(),
    )
    reports = [ModelReport(spec, state, runtime_status) for spec in catalog.models]
    waiting = services.scheduler.estimates.positions()
    return json_response(
        StatusAnswer.build(
            ollama_running=runtime_status.running,
            runtime=runtime_status.version,
            models_loaded=[report.spec.id for report in reports if report.is_loaded],
            max_loaded_models=services.settings.max_loaded_models,
            stuck_models=[StuckModel.serialize(each) for each in stuck_models.all_stuck(state)],
            effective_max_loaded_models=state.places,
            memory_available_gb=_memory_available_gb(),
            gpu_available=runtime_status.in_gpu or _has_gpu_device(),
            version=__version__,
            models=[ModelState.serialize(report) for report in reports],
            queue=[WaitingAnswer.serialize(QueueEntry(each, catalog)) for each in waiting],
        )
    )


def _checks(services: Services) -> dict[str, str]:
    runtime_status = services.runtime_status.current()
    return {
        "service": _SHUTTING_DOWN if services.shared.stopping else "ok",
        "runtime": services.runtime_status.problem or "ok",
        "catalog": services.catalog.problem or "ok",
        "state": services.coordinator.lock_problem or runtime_status.state_dir or "ok",
        "memory": _memory_problem(services) or "ok",
    }


def _memory_problem(services: Services) -> str | None:
    state = services.coordinator.read()
    pinned = map(state.place_of, services.coordinator.limits.pinned)
    return stuck_models.places_lost(state, pinned)


def _without_details(name: str, check: str) -> str:
    """Return the check for clients without a key, who may not learn paths and addresses."""
    if check in ("ok", _SHUTTING_DOWN):
        return check
    return f"{_FAILURES.get(name, 'requests are not served')}; {_FOR_THE_REASON}"


def _memory_available_gb() -> float | None:
    available = gauges.meminfo_bytes("MemAvailable")
    return None if available is None else round(available / 1e9, 2)


def _has_gpu_device() -> bool:
    return any(os.path.exists(device) for device in ("/dev/nvidia0", "/dev/kfd"))


@queue_bp.get("/<request_id>", endpoint="show")
@auth.login_required
@documented(WaitingAnswer, raises=(NotWaiting,))
def show_queue_position(request_id: str) -> Response:
    """Show the queue position of a waiting request.

    Requests are found by the `X-Request-ID` they were sent with.
    """
    services = get_services()
    for standing in services.scheduler.estimates.positions():
        if standing.request == request_id:
            entry = QueueEntry(standing, services.catalog.current())
            return json_response(WaitingAnswer.serialize(entry))
    raise NotWaiting(
        "no request with this X-Request-ID waits: it is running, has ended or was never received"
    )


@metrics_bp.get("/metrics", endpoint="show")
@documented(
    {kind: {"type": "string"} for kind in ("text/plain", "application/openmetrics-text")},
    scope=METRICS,
    raises=AUTH_ERRORS,
)
def show_metrics() -> Response:
    """Return all metrics for Prometheus.

    No key is needed if `METRICS_OPEN` is set.
    """
    is_open = get_services().settings.metrics_open
    return _metrics_page() if is_open else auth.login_required(role=METRICS)(_metrics_page)()


def _metrics_page() -> Response:
    page, media_type = get_services().metrics.render(request.headers.get("Accept", ""))
    return Response(page, content_type=media_type)
