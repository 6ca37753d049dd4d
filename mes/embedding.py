"""Make embeddings: look up the model, check it, wait for a permit, embed, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mes.config.catalog import Catalog
from mes.domain import Client, Provenance, Runtime, Vectors, milliseconds
from mes.domain.capabilities import EMBEDDING
from mes.domain.timeouts import naming_timeout
from mes.inference import provenance_of, require_capability
from mes.scheduling.answer_versions import AnswerVersions
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.scheduler import GrantedPermit, Scheduler


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed.

    `dimensions` is the length of the vectors; None means the model's own length. `encoding` is
    their form in the response. `ignored` are the names of parameters that the client sent and that
    have no effect.
    """

    model_id: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    encoding: str = "float"
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingTimings:
    """The time that each phase of an embedding took."""

    queue_ms: int
    load_ms: int
    embedding_ms: int
    total_ms: int
    cold_start: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """The result of an embedding: its vectors, with the options and versions behind them."""

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
    versions: AnswerVersions,
    client: Client,
    request_id: str = "",
) -> Embedding:
    """Return the vectors of the request's texts.

    Raises ModelNotFound, NotCapable, and the errors of `Scheduler.permit` and `Runtime.embed`.
    """
    started = time.monotonic()
    spec = catalog.get(request.model_id)
    require_capability(EMBEDDING, spec, runtime_status.pulled, pointer="/model")
    with scheduler.permit(spec, client, request_id=request_id) as permit:
        began = time.monotonic()
        with naming_timeout("embedding", spec, remedy="send fewer texts"):
            vectors = runtime.embed(
                spec,
                request.texts,
                dimensions=request.dimensions,
                deadline=began + spec.timeout_seconds,
                client=client,
            )
        ended = time.monotonic()
        permit = versions.confirm(permit, spec, loaded=vectors.load_ms > 0)
    return Embedding(
        model_id=spec.id,
        vectors=vectors,
        options=spec.load_options,
        timings=_timings(
            permit, vectors, embedding_seconds=ended - began, total_seconds=ended - started
        ),
        provenance=provenance_of(permit, runtime_status),
    )


def _timings(
    permit: GrantedPermit, vectors: Vectors, *, embedding_seconds: float, total_seconds: float
) -> EmbeddingTimings:
    load_ms = milliseconds(permit.load_seconds) + round(vectors.load_ms)
    return EmbeddingTimings(
        queue_ms=milliseconds(permit.queue_seconds),
        load_ms=load_ms,
        embedding_ms=milliseconds(embedding_seconds) - round(vectors.load_ms),
        total_ms=milliseconds(total_seconds),
        cold_start=permit.load_seconds > 0 or vectors.load_ms > 0,
    )
