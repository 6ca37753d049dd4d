"""Descriptions of models: the configuration, the shared state and the runtime put together."""

from __future__ import annotations

import time
from typing import Any

from mes.catalog import Catalog
from mes.domain import ModelSpec, milliseconds
from mes.scheduling.queue_estimate import QueuePosition
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State


def describe(spec: ModelSpec, state: State, runtime_status: RuntimeStatus) -> dict[str, Any]:
    """One model as `GET /v1/models` and `GET /v1/status` show it."""
    statistics = state.statistics.get(spec.tag)
    return {
        "id": spec.id,
        "name": spec.display_name,
        "status": _status(spec, state, runtime_status),
        "size_gb": spec.size_gb,
        "context_window": spec.context_window,
        "supports_json": spec.supports_json_mode,
        "loaded": runtime_status.running and state.ready(spec.tag),
        "in_flight": state.in_flight(spec.tag),
        "queued": len(state.waiting(spec.tag)),
        "oldest_wait_ms": _oldest_wait_ms(spec, state),
        "max_concurrent": spec.max_concurrent,
        "max_queue": spec.max_queue,
        "pinned": spec.pinned,
        "loads": statistics.loads if statistics else 0,
        "evictions": statistics.evictions if statistics else 0,
    }


def as_openai(spec: ModelSpec) -> dict[str, Any]:
    """One model as an OpenAI client expects it."""
    return {"id": spec.id, "object": "model", "created": 0, "owned_by": "mes"}


def as_waiting(standing: QueuePosition, catalog: Catalog) -> dict[str, Any]:
    """One request that waits its turn."""
    spec = catalog.by_tag(standing.model)
    expected = standing.expected_seconds
    return {
        "request_id": standing.request,
        "model_id": spec.id if spec else standing.model,
        "position": standing.position,
        "waited_ms": milliseconds(standing.waited_seconds),
        "expected_start_ms": None if expected is None else milliseconds(expected),
    }


def _oldest_wait_ms(spec: ModelSpec, state: State) -> int | None:
    arrived = [ticket.arrived_at for ticket in state.waiting(spec.tag)[:1]]
    return milliseconds(time.monotonic() - arrived[0]) if arrived else None


def _status(spec: ModelSpec, state: State, runtime_status: RuntimeStatus) -> str:
    if not spec.enabled:
        return "disabled"
    if spec.tag in state.registry and runtime_status.running:
        return "ready" if state.ready(spec.tag) else "loading"
    trouble = state.load_failures.get(spec.tag)
    if not runtime_status.running or (trouble is not None and trouble.until > time.monotonic()):
        return "unavailable"
    return "available" if spec.tag in runtime_status.pulled else "not_pulled"
