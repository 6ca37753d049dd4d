"""Provenance: which model answered, on which runtime, told alike by every use case."""

from __future__ import annotations

from mes import __version__
from mes.domain import Provenance
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.scheduler import Turn


def provenance_of(
    turn: Turn, runtime_status: RuntimeStatus, *, schema_sha256: str | None = None
) -> Provenance:
    """Of what was answered in this turn."""
    return Provenance(
        model_digest=turn.digest,
        quantization=turn.quantization,
        runtime=runtime_status.version,
        schema_sha256=schema_sha256,
        mes_version=__version__,
    )
