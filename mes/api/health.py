"""Health: does the process live, can work be done, and how does it stand with the models."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from flask import Blueprint, Response

from mes import __version__, host
from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.describe import as_waiting, describe
from mes.api.promises import promises
from mes.api.services import Services, services
from mes.api.shapes import HealthAnswer, ReadyAnswer, StatusAnswer
from mes.scheduling.queue_estimate import queue_positions

bp = Blueprint("health", __name__)


@bp.get("/health")
@promises(HealthAnswer)
def health() -> Response:
    """The process lives."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return answer({"status": "healthy", "timestamp": now, "version": __version__})


@bp.get("/ready")
@promises(ReadyAnswer, statuses=(200, 503))
def ready() -> Response:
    """Work can be done; otherwise the check that fails says what to look at."""
    checks = _checks(services())
    good = all(word == "ok" for word in checks.values())
    return answer({"status": "ready" if good else "not_ready", **checks}, 200 if good else 503)


@bp.get("/v1/status")
@auth.login_required
@promises(StatusAnswer)
def status() -> Response:
    """How the service, its queues and its models stand."""
    own = services()
    state, runtime_status, catalog = (
        own.coordinator.read(),
        own.runtime_status.current(),
        own.catalog.current(),
    )
    models = [describe(spec, state, runtime_status) for spec in catalog.models]
    waiting = queue_positions(state, time.monotonic(), own.coordinator.limits)
    return answer(
        {
            "ollama_running": runtime_status.running,
            "runtime": runtime_status.version,
            "models_loaded": [model["id"] for model in models if model["loaded"]],
            "max_loaded_models": own.settings.max_loaded_models,
            "memory_available_gb": _memory_available_gb(),
            "gpu_available": runtime_status.in_gpu or _has_gpu_device(),
            "version": __version__,
            "models": models,
            "queue": [as_waiting(each, catalog) for each in waiting],
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
    available = host.memory_bytes("MemAvailable")
    return None if available is None else round(available / 1e9, 2)


def _has_gpu_device() -> bool:
    return any(os.path.exists(device) for device in ("/dev/nvidia0", "/dev/kfd"))
