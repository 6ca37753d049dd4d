"""The models that take up places in memory: those in the registry, and those that leave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mes.scheduling.registry import (
    LOADING,
    MISSING,
    READY,
    LoadFailure,
    Registry,
    Resident,
    StuckRunner,
)


@dataclass
class Memory:
    """The places in the runtime's memory.

    A model that is loading, loaded or unloading has one, and so has a stuck one.

    Args:
        max_loaded: How many models may be in memory.
        pinned: The models that are never evicted.
        residency: A count of the changes of the models in memory, so that a list of the runtime
            from before such a change is known to be stale.
        swap_began: The time since which models are loading or unloading, or None.
        unloading: The ticket that unloads a model, by model.
        stuck: The models that cannot be made to leave memory, by key; nothing waits for them.
        unload_failures: The models that the runtime did not unload when it was asked to. Until the
            time in it, such a model is no victim.
        aliases: The place of a model, by model, where it is that of another name of its weights.
    """

    max_loaded: int
    pinned: frozenset[str] = frozenset()
    residency: int = 0
    swap_began: float | None = None
    registry: Registry = field(init=False)
    unloading: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, StuckRunner] = field(default_factory=dict)
    unload_failures: dict[str, LoadFailure] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(self.max_loaded, self._may_go, lambda: self.wanted)

    # Reading

    @property
    def wanted(self) -> set[str]:
        """The models that requests wait for."""
        raise NotImplementedError

    def in_flight(self, model: str) -> int:
        """Return how many requests use the model."""
        raise NotImplementedError

    def resident(self, model: str) -> Resident | None:
        """Return the model's entry in the registry, or None if it has no place in memory."""
        return self.registry.peek(model) if model in self.registry else None

    def ready(self, model: str) -> bool:
        return model in self.registry and self.registry.peek(model).phase == READY

    def in_memory(self, model: str) -> bool:
        """Return whether the model takes up a place: loading, loaded or unloading."""
        return model in self.registry or model in self.unloading

    def missing(self, model: str) -> bool:
        """Return whether the model has a place and users though the runtime does not list it."""
        return model in self.registry and self.registry.peek(model).phase == MISSING

    @property
    def draining(self) -> frozenset[str]:
        """The models that drain, to make room for others."""
        return frozenset(each.model for each in self.registry.residents() if each.draining)

    @property
    def places_free(self) -> int:
        """The number of models that may be loaded now; less than 0 if too many are in memory."""
        return self.max_loaded - len(self.registry) - len(self.unloading) - len(self.stuck)

    def _may_go(self, model: str) -> bool:
        return self.ready(model) and model not in self.pinned and not self.in_flight(model)

    # Changes

    def release(self, models: set[str], now: float) -> None:
        """Note that these models are no longer unloading: unloaded, or abandoned."""
        self.unloading = {model: by for model, by in self.unloading.items() if model not in models}
        self._residency_changed(now)

    def drop(self, model: str, now: float) -> None:
        """Note that the model is not in memory after all."""
        self.registry.pop(model, None)
        self._residency_changed(now)

    def look_for(self, model: str, *, listed: bool, now: float) -> None:
        """Note whether the runtime lists a model that was loaded.

        A model that is gone keeps its place until no request uses it: the runtime may be loading
        it for them, and with another in its place there would be one too many in memory.
        """
        if listed:
            self.registry.peek(model).phase = READY
        elif self.in_flight(model):
            self.registry.peek(model).phase = MISSING
        else:
            self.drop(model, now)

    def adopt(self, model: str, now: float, **facts: Any) -> None:
        """Give a place to a model that is in memory though MES did not load it."""
        self.registry[model] = Resident(model, READY, now, ready_at=now, used_at=now, **facts)
        self._residency_changed(now)

    def add_stuck(self, runner: StuckRunner, now: float) -> None:
        """Note that a model in memory cannot be made to leave."""
        self.stuck[runner.key] = runner
        self._residency_changed(now)

    def forget_stuck(self, keys: Iterable[str], now: float) -> None:
        """Note that stuck models have left memory, or are stuck no more."""
        for key in keys:
            self.stuck.pop(key, None)
        self._residency_changed(now)

    def correct(self, model: str, **facts: Any) -> None:
        """Replace fields of a resident by the values that the runtime reports."""
        for name, value in facts.items():
            setattr(self.registry.peek(model), name, value)

    def _residency_changed(self, now: float) -> None:
        self.residency += 1
        swapping = self.unloading or any(
            each.phase == LOADING for each in self.registry.residents()
        )
        if swapping and self.swap_began is None:
            self.swap_began = now
        elif not swapping and self.swap_began is not None:
            self._move_clocks(self.swap_began, now)
            self.swap_began = None

    def _move_clocks(self, began: float, now: float) -> None:
        """Do not count the time in which models were swapped as overtaken."""
        raise NotImplementedError
