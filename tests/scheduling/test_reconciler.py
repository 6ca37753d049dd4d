"""Errands: what the keeper takes on for all it also ends, however slow the runtime is."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from mes.scheduling import reconciler as module
from mes.scheduling.reconciler import Reconciler
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.shared_resources import open_shared_file
from tests.fakes import eventually, spec


@pytest.fixture
def reconciler(make, runtime, tmp_path, monkeypatch):
    """The errands of a keeper with room for two models; it looks in each round."""
    monkeypatch.setattr(module, "_RECONCILE_INTERVAL_SECONDS", 0.0)
    bench = make(spec("a"))
    file = open_shared_file(tmp_path / "runtime_status.json", 1000)
    with closing(file), closing(RuntimeStatusFile(file)) as runtime_status:
        runtime_status.become_leader()
        made = Reconciler(
            runtime=runtime,
            coordinator=bench.coordinator,
            worker=bench.worker,
            scheduler=bench.scheduler,
            model_loader=bench.model_loader,
            runtime_status=runtime_status,
            instance="test",
            idle_unload_seconds=0.0,
        )
        yield made, bench.coordinator
        eventually(lambda: not made.is_busy)


def test_a_stranger_that_appears_while_others_are_seen_out_is_seen_out_later(reconciler, runtime):
    leader, coordinator = reconciler
    runtime.in_memory = ["u:latest", "v:latest", "w:latest"]
    may_go, unload = threading.Event(), runtime.unload
    runtime.unload = lambda name: may_go.wait(10) and unload(name)
    leader.run()
    runtime.in_memory += ["x:latest", "y:latest", "z:latest"]
    leader.run()
    may_go.set()
    eventually(lambda: not leader.is_busy)
    leader.run()
    eventually(lambda: not leader.is_busy)
    assert (runtime.in_memory, coordinator.read().unloading) == ([], {})
