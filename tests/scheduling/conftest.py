"""Schedulers in this process, with a fake runtime and a state directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from mes.domain import ModelSpec
from mes.event_loop import EventLoop
from mes.scheduling.cooldown import Cooldown
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.fairness import Limits
from mes.scheduling.load_tasks import LoadTasks
from mes.scheduling.model_loader import ModelLoader
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.shared_file import SharedFile
from mes.scheduling.shared_resources import open_shared_file
from mes.scheduling.store import Store
from mes.scheduling.workers import WorkerProcess
from tests.fakes import FakeRuntime


@dataclass
class Bench:
    """The scheduler of one worker, and its parts."""

    scheduler: Scheduler
    coordinator: Coordinator
    store: Store
    worker: WorkerProcess
    model_loader: ModelLoader
    event_loop: EventLoop


Make = Callable[..., Bench]


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def registry_file(tmp_path: Path) -> Iterator[SharedFile]:
    with closing(open_shared_file(tmp_path / "registry.json", 10_000)) as file:
        yield file


@pytest.fixture
def make(tmp_path: Path, runtime: FakeRuntime, registry_file: SharedFile) -> Iterator[Make]:
    """Return a function that makes the scheduler of one more worker on the same state."""
    made: list[Bench] = []

    def bench(
        *models: ModelSpec,
        max_loaded: int = 2,
        patience: float = 30.0,
        queue_timeout: float = 10.0,
        drain_timeout: float = 10.0,
        cooldown: float = 10.0,
        lock_timeout: float = 5.0,
        slots: Mapping[str, int] = MappingProxyType({}),
    ) -> Bench:
        event_loop = EventLoop()
        worker = WorkerProcess(tmp_path, event_loop)
        store = Store(registry_file, max_loaded=max_loaded, lock_timeout_seconds=lock_timeout)
        by_tag = {spec.tag: spec for spec in models}
        limits = Limits(max_loaded, patience, models=by_tag, slots=slots)
        coordinator = Coordinator(store, worker, lambda: limits)
        model_loader = ModelLoader(
            runtime,
            store,
            load_timeout_seconds=10,
            unload_timeout_seconds=2,
            retry_pause_seconds=0.01,
            cooldown=Cooldown(cooldown, 60),
        )
        load_tasks = LoadTasks(coordinator, model_loader)
        scheduler = Scheduler(
            coordinator=coordinator,
            worker=worker,
            load_tasks=load_tasks,
            queue_timeout_seconds=queue_timeout,
            drain_timeout_seconds=drain_timeout,
        )
        made.append(Bench(scheduler, coordinator, store, worker, model_loader, event_loop))
        return made[-1]

    yield bench
    for each in made:
        each.coordinator.close()
        each.event_loop.close()
