"""Keep-alive: idle models that MES uses stay in memory, those that no name leads to leave it."""

from __future__ import annotations

import pytest

from mes.domain import KEEP_ALIVE_SECONDS, LoadedModel, PulledModel
from mes.errors import LoadTimeout, StateLocked
from mes.scheduling.background import BackgroundOperations
from mes.scheduling.keep_alive import KeepAlive
from mes.scheduling.registry import MISSING
from tests.fakes import DIGEST, eventually, spec

A = "a:latest"
LISTED = [LoadedModel(A, DIGEST, "Q4_0", 10, 0, None)]
PULLED = {A: PulledModel(A, DIGEST, 10, "Q4_0", "1B")}


@pytest.fixture
def bench(make):
    """Return the scheduler of a worker that has loaded model a."""
    bench = make(spec("a"))
    with bench.coordinator.transaction() as transaction:
        transaction.state.adopt(A, transaction.now)
        transaction.state.renewed_at[A] = transaction.now
    return bench


@pytest.fixture
def renew(bench, runtime):
    """Return a function that runs a round, and returns how often the runtime was asked."""

    def run(listed=LISTED, pulled=PULLED):
        background, before = BackgroundOperations(), runtime.loads[A]
        KeepAlive(
            runtime=runtime,
            coordinator=bench.coordinator,
            worker=bench.worker,
            background=background,
        ).run(listed, pulled)
        eventually(lambda: not background.any_running)
        return runtime.loads[A] - before

    return run


def let_time_pass(bench, seconds=KEEP_ALIVE_SECONDS * 0.6):
    with bench.coordinator.transaction() as transaction:
        transaction.state.renewed_at[A] -= seconds
        transaction.state.registry.peek(A).used_at -= seconds


def test_an_idle_model_is_renewed_once_in_half_its_time(bench, renew):
    assert renew() == 0
    let_time_pass(bench)
    assert (renew(), renew()) == (1, 0)


def test_a_renewal_is_no_use_of_the_model(bench, renew):
    let_time_pass(bench)
    used_at = bench.coordinator.read().registry.peek(A).used_at
    assert renew() == 1
    state = bench.coordinator.read()
    assert (state.registry.peek(A).used_at, state.permits, state.statistics) == (used_at, {}, {})


def test_a_model_that_requests_use_is_not_renewed(bench, renew):
    let_time_pass(bench)
    with bench.coordinator.transaction() as transaction:
        transaction.state.join("w/1", bench.worker.id, A, "permit", transaction.now)
    assert A in {permit.model for permit in bench.coordinator.read().permits.values()}
    assert renew() == 0


def test_a_model_is_not_evicted_during_its_renewal(bench, renew, runtime):
    let_time_pass(bench)
    evictable = []
    runtime.load = lambda spec, deadline: evictable.append(
        bench.coordinator.read().registry.victim()
    )
    renew()
    assert evictable == [None]
    assert bench.coordinator.read().registry.victim() == A


@pytest.mark.parametrize(
    ("listed", "pulled"),
    [
        (LISTED, {}),
        (LISTED, {A: PulledModel(A, "sha256:1", 10, "Q4_0", "1B")}),
        ([*LISTED, LoadedModel(A, "sha256:1", "Q4_0", 10, 0, None)], PULLED),
        ([], PULLED),
    ],
)
def test_a_model_that_its_name_does_not_lead_to_is_left_to_expire(bench, renew, listed, pulled):
    let_time_pass(bench)
    assert renew(listed, pulled) == 0


def test_a_model_that_the_runtime_has_loaded_by_itself_is_renewed_at_once(bench, renew):
    with bench.coordinator.transaction() as transaction:
        transaction.state.registry.peek(A).phase = MISSING
        transaction.state.look_for(A, listed=True, now=transaction.now)
    assert (renew(), renew()) == (1, 0)


def test_a_renewal_that_fails_is_not_repeated_at_once(bench, renew, runtime):
    let_time_pass(bench)
    runtime.load_errors[A] = [LoadTimeout("it has left memory")]
    assert (renew(), renew()) == (1, 0)
    assert bench.coordinator.read().permits == {}


def test_the_permit_of_a_renewal_is_given_back_when_the_state_can_be_changed_again(
    bench, renew, runtime, monkeypatch
):
    let_time_pass(bench)
    transaction = bench.coordinator.transaction

    def locked():
        raise StateLocked("held by another process")

    runtime.load = lambda spec, deadline: monkeypatch.setattr(
        bench.coordinator, "transaction", locked
    )
    renew()
    monkeypatch.setattr(bench.coordinator, "transaction", transaction)
    eventually(lambda: bench.coordinator.read().permits == {})
