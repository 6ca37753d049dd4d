"""The limits: what the policy must keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mes.domain import ModelSpec
from mes.scheduling.state import State

# Without a patience of the operator's choice each turn is long enough that under full load about a
# tenth of the time goes into loading.
_LOADS_WORTH_OF_A_TURN = 10.0


@dataclass(frozen=True)
class Limits:
    """The operator's and the catalog's; `models` by the name the runtime knows them by.

    `patience_seconds` None: as measured loads suggest, between the two bounds.
    """

    max_loaded: int
    patience_seconds: float | None = None
    patience_bounds: tuple[float, float] = (20.0, 300.0)
    memory_bytes: int | None = None
    models: Mapping[str, ModelSpec] = field(default_factory=dict)

    @cached_property
    def pinned(self) -> frozenset[str]:
        return frozenset(spec.tag for spec in self.models.values() if spec.pinned)

    def max_concurrent(self, model: str) -> int:
        # A model that has left the catalog while somebody waited for it is served one by one.
        return self.models[model].max_concurrent if model in self.models else 1

    def patience(self, state: State, in_line: int = 1) -> float:
        """For how long a request may be overtaken, in seconds, with so many models in line."""
        if self.patience_seconds is not None:
            return self.patience_seconds
        slowest = max((tally.load_seconds or 0.0 for tally in state.tallies.values()), default=0.0)
        least, most = self.patience_bounds
        return min(most, max(least, _LOADS_WORTH_OF_A_TURN * slowest * in_line))

    def usual_seconds(self, state: State, model: str | None = None) -> float:
        """How long a request usually takes: on this model, or where that is unknown on any."""
        tally = state.tallies.get(model) if model is not None else None
        if tally is not None and tally.use_seconds is not None:
            return tally.use_seconds
        known = [each.use_seconds for each in state.tallies.values() if each.use_seconds]
        return sum(known) / len(known) if known else 0.0

    def size_bytes(self, state: State, model: str) -> int:
        """What the model takes up: as the runtime has said, else as the catalog says, else 0."""
        tally, spec = state.tallies.get(model), self.models.get(model)
        if tally is not None and tally.size_bytes:
            return tally.size_bytes
        gigabytes = spec and (spec.min_memory_gb or spec.size_gb)
        return int(gigabytes * 1e9) if gigabytes else 0

    def has_room_for(self, state: State, model: str) -> bool:
        """May the model be loaded as things stand?"""
        if state.places_free <= 0:
            return False
        if self.memory_bytes is None:
            return True
        held = [*state.registry, *state.leaving, model]
        return sum(self.size_bytes(state, each) for each in held) <= self.memory_bytes

    def why_never(self, state: State, model: str) -> str | None:
        """Why the model cannot be loaded whatever is unloaded for it, if that is so."""
        pinned = self.pinned & set(state.registry)
        if len(pinned) >= self.max_loaded:
            return (
                f"pinned models take up all {self.max_loaded} places in memory; "
                "unpin one or raise MAX_LOADED_MODELS"
            )
        needed = sum(self.size_bytes(state, each) for each in {*pinned, model})
        if self.memory_bytes is not None and needed > self.memory_bytes:
            return (
                f"it needs {needed / 1e9:.1f} GB with the pinned models, and MAX_MODEL_MEMORY_GB "
                f"is {self.memory_bytes / 1e9:.1f}"
            )
        return None
