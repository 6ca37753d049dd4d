"""The places of the runtime: found from its evictions, used by the policy, and tried again."""

from __future__ import annotations

import pytest

from mes.domain import LoadedModel
from mes.scheduling import policy, runtime_places
from mes.scheduling.fairness import Limits
from mes.scheduling.places_observer import PlacesObserver
from mes.scheduling.registry import LOAD, MISSING, PERMIT
from mes.scheduling.stalled_loads import StalledLoads
from mes.scheduling.state import State
from tests.fakes import DIGEST, spec

A, B, C = "a:latest", "b:latest", "c:latest"
LIMITS = Limits(2, 5.0, models={f"{name}:latest": spec(name, max_concurrent=2) for name in "abc"})


def listed(*names: str) -> list[LoadedModel]:
    return [LoadedModel(name, DIGEST, "Q4_0", 10, 0, None) for name in names]


def evict(state: State, *, times: int = 2, held: int = 1, now: float = 100.0) -> None:
    for n in range(times):
        runtime_places.note_eviction(state, held, now + 10 * n)


def test_two_evictions_show_how_many_models_the_runtime_holds():
    state = State(2)
    evict(state, times=1)
    assert (state.places, runtime_places.problem(state)) == (2, None)
    evict(state, times=1, now=110.0)
    assert state.places == state.places_free == 1
    assert "holds 1 of the 2 models" in (runtime_places.problem(state) or "")


def test_one_eviction_that_two_observers_see_counts_once():
    state = State(2)
    for now in (100.0, 101.0):
        runtime_places.note_eviction(state, 1, now)
    assert state.places == 2


def test_evictions_that_lie_far_apart_show_nothing():
    state = State(2)
    evict(state, times=1)
    evict(state, times=1, now=1000.0)
    assert state.places == 2


def test_an_eviction_for_a_load_that_others_made_room_for_is_enough():
    state = State(2)
    runtime_places.note_eviction(state, 1, 100.0, is_certain=True)
    assert state.places == 1


def test_an_eviction_from_full_places_shows_nothing():
    state = State(2)
    evict(state, held=2)
    assert state.places == 2


def test_models_that_are_listed_together_raise_the_limit():
    state = State(3)
    evict(state)
    runtime_places.note_held(state, 2)
    assert state.places == 2
    runtime_places.note_held(state, 3)
    assert (state.places, state.found_places) == (3, {})


def test_more_models_are_tried_after_a_while_that_grows_each_time():
    state, now = State(2), 100.0
    evict(state, now=now)
    pauses = []
    for _ in range(8):
        (found,) = state.found_places.values()
        runtime_places.try_more(state, found.until - 1)
        assert state.places == 1
        pauses.append(found.until - found.evicted_at)
        runtime_places.try_more(state, found.until)
        assert state.places == 2
        evict(state, times=1, now=found.until + 5)
    assert pauses[:3] == [600, 1200, 2400]
    assert max(pauses) == 21600


def loading(model: str = B, *ready: str) -> State:
    """Return a state in which models are ready, and a load has begun after that."""
    state = State(2)
    for n, name in enumerate(ready):
        state.adopt(name, float(n))
    state.join("w/load", "w", model, PERMIT, 10.0)
    policy.settle(state, 10.0, LIMITS)
    assert state.tickets["w/load"].task == LOAD
    return state


def test_a_ready_model_that_is_not_listed_after_a_load_was_evicted_for_it():
    state = loading(B, A)
    runtime_places.note_load(state, B, listed(A, B), 11.0)
    assert state.found_places == {}
    runtime_places.note_load(state, B, listed(B), 11.0)
    assert [each.evictions for each in state.found_places.values()] == [1]


def test_a_model_that_is_not_listed_after_its_own_load_was_evicted():
    state = loading(B, A)
    runtime_places.note_load(state, B, listed(A), 11.0)
    assert [each.evictions for each in state.found_places.values()] == [1]


def test_where_too_many_models_have_places_they_serve_nothing_until_one_has_gone():
    state = State(2)
    for name in (A, B):
        state.adopt(name, 0.0)
        state.join(f"w/{name}", "w", name, PERMIT, 0.0)
    policy.settle(state, 0.0, LIMITS)
    runtime_places.note_eviction(state, 1, 1.0, is_certain=True)
    state.look_for(B, listed=False, now=1.0)
    assert state.registry.peek(B).phase == MISSING
    waiting = state.join("w/late", "w", A, PERMIT, 2.0)
    assert policy.settle(state, 2.0, LIMITS)[-1] == policy.Drain(frozenset({A}))
    assert waiting.id in state.tickets
    state.leave(f"w/{B}", 3.0)
    state.look_for(B, listed=False, now=3.0)
    policy.settle(state, 3.0, LIMITS)
    assert waiting.id in state.permits


def test_pinned_models_that_take_up_all_places_of_the_runtime_are_named_with_the_remedy():
    limits = Limits(2, 5.0, models={A: spec("a", pinned=True), B: spec("b")})
    state = State(2)
    state.adopt(A, 0.0)
    assert limits.why_never(state, B) is None
    evict(state)
    reason = limits.why_never(state, B) or ""
    assert "all 1 places" in reason
    assert "raise its OLLAMA_MAX_LOADED_MODELS" in reason


@pytest.fixture
def bench(make):
    """Return a worker with model a in memory and in use, while b is loading."""
    bench = make(*LIMITS.models.values(), patience=5.0)
    with bench.coordinator.transaction() as transaction:
        transaction.state.adopt(A, transaction.now)
        transaction.state.join("w/a", bench.worker.id, A, PERMIT, transaction.now)
        transaction.state.join("w/b", bench.worker.id, B, PERMIT, transaction.now)
    assert bench.coordinator.read().tickets["w/b"].task == LOAD
    return bench


def let_it_take(bench, seconds):
    with bench.coordinator.transaction() as transaction:
        transaction.state.registry.peek(B).since -= seconds
        transaction.state.registry.peek(A).used_at -= seconds


def leave(bench, ticket):
    with bench.coordinator.transaction() as transaction:
        transaction.state.leave(ticket, transaction.now)


def join(bench, ticket):
    with bench.coordinator.transaction() as transaction:
        transaction.state.join(ticket, bench.worker.id, A, PERMIT, transaction.now)
    return ticket in bench.coordinator.read().permits


def test_the_other_models_drain_for_a_load_that_takes_longer_than_the_patience(bench):
    loads = StalledLoads(bench.coordinator)
    loads.run()
    assert join(bench, "w/early")
    let_it_take(bench, 6.0)
    loads.run()
    assert bench.coordinator.read().draining == {A}
    for ticket in ("w/a", "w/early"):
        leave(bench, ticket)
    assert not join(bench, "w/late")


def test_a_load_for_which_idle_models_do_not_go_is_only_slow(bench):
    loads = StalledLoads(bench.coordinator)
    let_it_take(bench, 6.0)
    loads.run()
    leave(bench, "w/a")
    assert not join(bench, "w/late")
    loads.run()
    assert "w/late" in bench.coordinator.read().tickets  # not yet idle for long
    let_it_take(bench, 3.0)
    loads.run()
    assert "w/late" in bench.coordinator.read().permits
    let_it_take(bench, 60.0)
    loads.run()
    assert bench.coordinator.read().draining == frozenset()


def observe(observer, bench, *names):
    observer.run(listed(*names), bench.coordinator.read().residency)


def test_a_model_that_leaves_before_another_comes_was_evicted_for_it(bench):
    observer = PlacesObserver(bench.coordinator)
    observe(observer, bench, A)
    observe(observer, bench)
    with bench.coordinator.transaction() as transaction:
        transaction.state.finish_load(B, transaction.now)
    observe(observer, bench, B)
    (found,) = bench.coordinator.read().found_places.values()
    assert (found.evictions, found.held) == (1, 1)


def test_a_model_that_was_gone_before_the_load_began_was_not_evicted_for_it(make):
    bench = make(*LIMITS.models.values())
    observer = PlacesObserver(bench.coordinator)
    with bench.coordinator.transaction() as transaction:
        transaction.state.adopt(A, transaction.now)
    observe(observer, bench, A)
    observe(observer, bench)
    with bench.coordinator.transaction() as transaction:
        transaction.state.drop(A, transaction.now)
        transaction.state.adopt(B, transaction.now)
    observe(observer, bench, B)
    assert bench.coordinator.read().found_places == {}


def test_a_list_from_before_a_change_shows_nothing(bench):
    observer = PlacesObserver(bench.coordinator)
    observe(observer, bench, A)
    with bench.coordinator.transaction() as transaction:
        transaction.state.finish_load(B, transaction.now)
    observer.run(listed(B), bench.coordinator.read().residency - 1)
    assert bench.coordinator.read().found_places == {}


def test_a_restart_of_the_runtime_forgets_what_was_found(bench):
    with bench.coordinator.transaction() as transaction:
        evict(transaction.state)
    assert bench.coordinator.read().places == 1
    PlacesObserver(bench.coordinator).restart()
    assert bench.coordinator.read().places == 2


def test_two_names_of_one_model_share_its_slots():
    models = {A: spec("a", max_concurrent=4), B: spec("b", max_concurrent=4)}
    limits = Limits(2, 5.0, models=models, slots={A: 3, B: 3})
    state = State(2)
    state.aliases[B] = A
    state.adopt(A, 0.0)
    for n in range(8):
        state.join(f"w/{n}", "w", (A, B)[n % 2], PERMIT, 0.0)
    policy.settle(state, 0.0, limits)
    assert len(state.permits) == 3
