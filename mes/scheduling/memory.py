"""The models that take up places in memory: those in the registry, and those that leave it."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from mes.domain import LoadedModel
from mes.scheduling.registry import (
    LOADING,
    MISSING,
    NOT_UNLOADED,
    READY,
    FoundPlaces,
    LoadFailure,
    Registry,
    Resident,
    StuckRunner,
    runner_key,
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
        unload_failures: The models that the runtime did not unload when it was asked to, by place,
            and those of the stuck ones, by key. Such a model is no victim until it has left memory:
            the leader asks again once it is idle. If it is in use at the end of the pause, it may
            be chosen as a victim again.
        aliases: The place of a model that has the place of another name, by model; also of a model
            in memory that the runtime lists under a name it had before, by key.
        found_places: The places that the runtime was found to have (runtime_places.py); one entry.
        stalled: The models whose load does not end, by place: whether the others make room for it,
            or have done so in vain (stalled_loads.py).
        renewed_at: When a load last set for how long the runtime keeps a model, by place.
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
    renewed_at: dict[str, float] = field(default_factory=dict)
    found_places: dict[str, FoundPlaces] = field(default_factory=dict)
    stalled: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(self.max_loaded, self._may_go, lambda: self.wanted)

    # Reading

    @property
    def wanted(self) -> set[str]:
        """The models that requests wait for."""
        raise NotImplementedError

    def in_use(self, place: str) -> bool:
        """Return whether a request uses the model in this place, by any of its names."""
        raise NotImplementedError

    def place_of(self, model: str) -> str:
        """Return the place that the model has or would get: its own name, unless it is an alias."""
        return self.aliases.get(model, model)

    def place_of_runner(self, model: str, digest: str) -> str:
        """Return the place of a model in the runtime's memory, which the runtime lists so."""
        return self.aliases.get(runner_key(model, digest)) or self.place_of(model)

    def places_of(self, runners: Iterable[LoadedModel]) -> list[str]:
        """Return the place of each model in the runtime's memory, without the stuck ones.

        A place is there twice if the runtime lists an earlier version of its model as well.
        """
        return [
            self.place_of_runner(each.name, each.digest)
            for each in runners
            if runner_key(each.name, each.digest) not in self.stuck
        ]

    def runner_at(self, place: str, listed: Iterable[LoadedModel]) -> LoadedModel | None:
        """Return the model in this place as the runtime lists it, or None. A stuck one has none."""
        return next((each for each in listed if self.places_of([each]) == [place]), None)

    def resident(self, model: str) -> Resident | None:
        """Return the model's entry in the registry, or None if it has no place in memory."""
        place = self.place_of(model)
        return self.registry.peek(place) if place in self.registry else None

    def loading_by(self, ticket: str) -> Resident | None:
        """Return the resident that the ticket loads; its name may lead elsewhere by now."""
        residents = self.registry.residents()
        return next((each for each in residents if each.ticket == ticket), None)

    def ready(self, model: str) -> bool:
        resident = self.resident(model)
        return resident is not None and resident.phase == READY

    def in_memory(self, model: str) -> bool:
        """Return whether the model takes up a place: loading, loaded or unloading."""
        place = self.place_of(model)
        return place in self.registry or place in self.unloading

    def missing(self, model: str) -> bool:
        """Return whether the model has a place and users though the runtime does not list it."""
        resident = self.resident(model)
        return resident is not None and resident.phase == MISSING

    @property
    def draining(self) -> frozenset[str]:
        """The places whose models drain, to make room for others."""
        return frozenset(each.model for each in self.registry.residents() if each.draining)

    @property
    def places(self) -> int:
        """How many models may be in memory: as configured, or as many as the runtime holds."""
        if not self.found_places:
            return self.max_loaded
        limits = (each.limit for each in self.found_places.values() if each.limit)
        return min((self.max_loaded, *limits))

    @property
    def surplus(self) -> int:
        """How many models too many have a place in the registry, since the runtime holds fewer."""
        return max(0, len(self.registry) - self.places)

    @property
    def places_free(self) -> int:
        """The number of models that may be loaded now; less than 0 if too many are in memory."""
        return self.places - len(self.registry) - len(self.unloading) - len(self.stuck)

    @property
    def stuck_in_the_way(self) -> bool:
        """Whether stuck models have left too few places for the models in the registry."""
        return bool(self.stuck) and len(self.registry) + len(self.stuck) > self.places

    def kept(self, place: str) -> bool:
        """Return whether the model in this place is no victim even if it is idle."""
        failure = self.unload_failures.get(place)
        return place in self.pinned or (failure is not None and not failure.is_over)

    def _may_go(self, place: str) -> bool:
        return self.ready(place) and not self.kept(place) and not self.in_use(place)

    # Changes

    def release(self, models: set[str], now: float) -> None:
        """Note that these models are no longer unloading: unloaded, or abandoned."""
        self.unloading = {model: by for model, by in self.unloading.items() if model not in models}
        self._forget_failures(models)
        self._residency_changed(now)

    def drop(self, model: str, now: float) -> None:
        """Note that the model is not in memory after all."""
        place = self.place_of(model)
        self.registry.pop(place, None)
        self._forget_failures({place})
        self.renewed_at.pop(place, None)
        self.stalled.pop(place, None)
        self._residency_changed(now)

    def look_for(self, model: str, *, listed: bool, now: float) -> None:
        """Note whether the runtime lists a model that was loaded.

        A model that is gone keeps its place until no request uses it: the runtime may be loading
        it for them, and with another in its place there would be one too many in memory.
        """
        if listed:
            if self.missing(model):
                # The runtime has loaded it by itself, with its own setting.
                self.renewed_at.pop(model, None)
            self.registry.peek(model).phase = READY
        elif self.in_use(model):
            self.registry.peek(model).phase = MISSING
            self._forget_failures({model})
        else:
            self.drop(model, now)

    def adopt(self, model: str, now: float, **facts: Any) -> None:
        """Give a place to a model that is in memory though MES did not load it."""
        self.registry[model] = Resident(model, READY, now, ready_at=now, used_at=now, **facts)
        self._residency_changed(now)

    def add_stuck(self, runner: StuckRunner, now: float) -> None:
        """Note that a model in memory cannot be made to leave; it has no other place any more."""
        self.stuck[runner.key] = runner
        self._residency_changed(now)

    def keep_after_failed_unload(
        self, place: str, failure: LoadFailure, now: float, **facts: Any
    ) -> None:
        """Give a model its place back, because the runtime did not unload it.

        It serves requests again. Without a place in the registry it is stuck.
        """
        self.unloading.pop(place, None)
        self.unload_failures[place] = failure
        if len(self.registry) < self.max_loaded:
            self.adopt(place, now, **facts)
        else:
            digest, size = facts.get("digest") or "", facts.get("size_bytes", 0)
            self.add_stuck(StuckRunner(place, digest, NOT_UNLOADED, now, size), now)

    def set_aside(self, place: str, ticket: str, now: float) -> Resident:
        """Let no request use an idle model while the runtime is asked to unload it."""
        resident = self.registry.pop(place)
        self.unloading[place] = ticket
        self._residency_changed(now)
        return resident

    def put_back(self, resident: Resident, now: float) -> None:
        """Let a model that was set aside serve again, because it has not left memory."""
        self.unloading.pop(resident.model, None)
        self.registry[resident.model] = resident
        self._residency_changed(now)

    def end_pauses(self, places: Iterable[str]) -> None:
        """Let models be victims again that the runtime did not unload."""
        for place in places:
            self.unload_failures[place].end_pause()

    def forget_stuck(self, keys: Iterable[str], now: float) -> None:
        """Note that stuck models have left memory, or are stuck no more."""
        gone = set(keys)
        self.stuck = {key: each for key, each in self.stuck.items() if key not in gone}
        self._forget_failures(gone)
        self._residency_changed(now)

    def move(self, place: str, other: str) -> None:
        """Give the model in a place that of another name. Of two models, a ready one stays."""
        resident = self.registry.pop(place)
        if other in self.registry and self.ready(other):
            return
        resident.model = other
        self.registry[other] = resident

    def correct(self, model: str, **facts: Any) -> None:
        """Replace fields of a resident by the values that the runtime reports."""
        for name, value in facts.items():
            setattr(self.registry.peek(self.place_of(model)), name, value)

    def _forget_failures(self, keys: Set[str]) -> None:
        for key in keys & self.unload_failures.keys():
            del self.unload_failures[key]

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
