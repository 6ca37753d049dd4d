"""The use case: admit, embed, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mes.capabilities import EMBEDS, require
from mes.catalog import Catalog
from mes.domain import Caller, Provenance, Runtime, Vectors, milliseconds
from mes.provenance import provenance_of
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.scheduler import Scheduler, Turn


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts that are to become vectors; without `dimensions`, as long as the model makes them."""

    model_id: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    encoding: str = "float"


@dataclass(frozen=True, slots=True)
class EmbeddingTimings:
    """Where the time went; milliseconds."""

    queue_ms: int
    load_ms: int
    embedding_ms: int
    total_ms: int
    cold_start: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """One answered embedding: its vectors and how they came about."""

    model_id: str
    vectors: Vectors
    options: Mapping[str, Any]
    timings: EmbeddingTimings
    provenance: Provenance


def embed(
    request: EmbeddingRequest,
    *,
    catalog: Catalog,
    scheduler: Scheduler,
    runtime: Runtime,
    runtime_status: RuntimeStatus,
    caller: Caller,
    request_id: str = "",
) -> Embedding:
    """Make vectors of texts and wait for them.

    Raises what `Scheduler.permit` and `Runtime.embed` raise, ModelNotFound and NotCapable.
    """
    started = time.monotonic()
    spec = catalog.get(request.model_id)
    require(EMBEDS, spec, runtime_status.pulled, pointer="/model")
    with scheduler.permit(spec, caller, request_id=request_id) as turn:
        began = time.monotonic()
        vectors = runtime.embed(
            spec,
            request.texts,
            dimensions=request.dimensions,
            deadline=began + spec.timeout_seconds,
            caller=caller,
        )
        ended = time.monotonic()
    return Embedding(
        model_id=spec.id,
        vectors=vectors,
        options=spec.load_options,
        timings=_timings(turn, embedding_seconds=ended - began, total_seconds=ended - started),
        provenance=provenance_of(turn, runtime_status),
    )


def _timings(turn: Turn, *, embedding_seconds: float, total_seconds: float) -> EmbeddingTimings:
    return EmbeddingTimings(
        queue_ms=milliseconds(turn.queue_seconds),
        load_ms=milliseconds(turn.load_seconds),
        embedding_ms=milliseconds(embedding_seconds),
        total_ms=milliseconds(total_seconds),
        cold_start=turn.load_seconds > 0,
    )
