"""Health: does the process live, can work be done, and how does it stand with the models."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from flask import Blueprint, Response, request

from mes import __version__
from mes.api.auth import AUTH_ERRORS, auth
from mes.api.operation_docs import documented
from mes.api.response_schemas import HealthAnswer, ReadyAnswer, StatusAnswer, WaitingAnswer
from mes.api.serializers import json_response, serialize_model, serialize_queue_position
from mes.api.services import Services, services
from mes.config.api_keys import METRICS
from mes.errors import NotWaiting
from mes.metrics import gauges
from mes.scheduling.queue_estimate import queue_positions

bp = Blueprint("health", __name__)


@bp.get("/health")
@documented(HealthAnswer)
def health() -> Response:
    """The process lives."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json_response({"status": "healthy", "timestamp": now, "version": __version__})


@bp.get("/ready")
@documented(ReadyAnswer, statuses=(200, 503))
def ready() -> Response:
    """Work can be done; otherwise the check that fails says what to look at."""
    checks = _checks(services())
    good = all(word == "ok" for word in checks.values())
    return json_response(
        {"status": "ready" if good else "not_ready", **checks}, 200 if good else 503
    )


@bp.get("/v1/status")
@auth.login_required
@documented(StatusAnswer)
def status() -> Response:
    """How the service, its queues and its models stand."""
    own = services()
    state, runtime_status, catalog = (
        own.coordinator.read(),
        own.runtime_status.current(),
        own.catalog.current(),
    )
    models = [serialize_model(spec, state, runtime_status) for spec in catalog.models]
    waiting = queue_positions(state, time.monotonic(), own.coordinator.limits)
    return json_response(
        {
            "ollama_running": runtime_status.running,
            "runtime": runtime_status.version,
            "models_loaded": [model["id"] for model in models if model["loaded"]],
            "max_loaded_models": own.settings.max_loaded_models,
            "memory_available_gb": _memory_available_gb(),
            "gpu_available": runtime_status.in_gpu or _has_gpu_device(),
            "version": __version__,
            "models": models,
            "queue": [serialize_queue_position(each, catalog) for each in waiting],
        }
    )


def _checks(own: Services) -> dict[str, str]:
    runtime_status = own.runtime_status.current()
    runtime = (
        "ok"
        if runtime_status.running
        else runtime_status.detail or "the runtime has not answered lately"
    )
    return {
        "service": "it is shutting down" if own.shared.stopping else "ok",
        "runtime": runtime,
        "catalog": own.catalog.problem or "ok",
        "state": runtime_status.state_dir or "ok",
    }


def _memory_available_gb() -> float | None:
    available = gauges.meminfo_bytes("MemAvailable")
    return None if available is None else round(available / 1e9, 2)


def _has_gpu_device() -> bool:
    return any(os.path.exists(device) for device in ("/dev/nvidia0", "/dev/kfd"))


# The queue: where a waiting request stands, for whoever asks by its id.

queue_bp = Blueprint("queue", __name__, url_prefix="/v1/queue")


@queue_bp.get("/<request_id>", endpoint="show")
@auth.login_required
@documented(WaitingAnswer, raises=(NotWaiting,))
def show_queue_position(request_id: str) -> Response:
    """The position and the expected start of the request that was sent with this X-Request-ID."""
    own = services()
    for standing in queue_positions(
        own.coordinator.read(), time.monotonic(), own.coordinator.limits
    ):
        if standing.request == request_id:
            return json_response(serialize_queue_position(standing, own.catalog.current()))
    raise NotWaiting("no request with this X-Request-ID waits: it runs, has ended, or never came")


# Metrics: the page that Prometheus scrapes.

metrics_bp = Blueprint("metrics", __name__)


@metrics_bp.get("/metrics", endpoint="show")
@documented(
    {kind: {"type": "string"} for kind in ("text/plain", "application/openmetrics-text")},
    scope=METRICS,
    raises=AUTH_ERRORS,
)
def show_metrics() -> Response:
    """All metrics; without a key where METRICS_OPEN says so."""
    is_open = services().settings.metrics_open
    return _page() if is_open else auth.login_required(role=METRICS)(_page)()


def _page() -> Response:
    page, media_type = services().metrics.render(request.headers.get("Accept", ""))
    return Response(page, content_type=media_type)
