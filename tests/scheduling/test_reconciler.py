"""The reconciler: it completes each operation that it begins, however slow the runtime is."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from mes.errors import RuntimeUnavailable
from mes.scheduling import reconciler as module
from mes.scheduling import registry_correction
from mes.scheduling.reconciler import Reconciler
from mes.scheduling.registry import MISSING, LoadFailure
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.shared_resources import open_shared_file
from tests.fakes import eventually, spec


@pytest.fixture
def reconciler(make, runtime, tmp_path, monkeypatch):
    """Return a reconciler with room for two models, for which each call is due."""
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


def test_an_untracked_model_that_appears_during_an_unload_is_unloaded_later(reconciler, runtime):
    made, coordinator = reconciler
    runtime.in_memory = ["u:latest", "v:latest", "w:latest"]
    release, unload = threading.Event(), runtime.unload
    runtime.unload = lambda name: release.wait(10) and unload(name)
    made.run()
    runtime.in_memory += ["x:latest", "y:latest", "z:latest"]
    made.run()
    release.set()
    eventually(lambda: not made.is_busy)
    made.run()
    eventually(lambda: not made.is_busy)
    assert (runtime.in_memory, coordinator.read().unloading) == ([], {})


def test_a_missing_model_is_not_waited_for_while_the_runtime_is_down(reconciler, runtime):
    made, coordinator = reconciler
    with coordinator.transaction() as transaction:
        transaction.state.adopt("a:latest", transaction.now)
        transaction.state.registry.peek("a:latest").phase = MISSING
    runtime.down = RuntimeUnavailable("cannot be reached")
    made.run()
    assert not coordinator.read().in_memory("a:latest")


def test_a_model_that_is_asked_again_to_leave_serves_no_request_meanwhile(
    reconciler, runtime, monkeypatch
):
    monkeypatch.setattr(registry_correction, "_AGAIN_SECONDS", 0.05)
    made, coordinator = reconciler
    runtime.in_memory = ["a:latest"]
    with coordinator.transaction() as transaction:
        state = transaction.state
        state.adopt("a:latest", transaction.now)
        state.unload_failures["a:latest"] = LoadFailure(1, 0.0, "it stays")
    served = []
    runtime.unload = lambda name: served.append(coordinator.read().ready(name))
    made.run()
    eventually(lambda: not made.is_busy)
    assert served == [False]
    state = coordinator.read()
    assert state.ready("a:latest")
    assert (state.unload_failures["a:latest"].failures, state.unloading) == (2, {})
