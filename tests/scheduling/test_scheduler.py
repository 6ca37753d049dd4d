"""Permits, loads and unloads, within one worker and between several."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from mes import errors
from mes.scheduling.registry import PERMIT, UNLOAD
from mes.scheduling.untracked_models import claim_untracked
from tests.fakes import FakeRuntime, client, eventually, in_thread, spec
from tests.scheduling.conftest import Bench, Make


def use(bench: Bench, model, action=lambda: None, by=None):
    with bench.scheduler.permit(model, by or client()) as granted:
        action()
    return granted


def test_the_first_permit_loads_the_model_and_the_next_finds_it_there(make: Make, runtime):
    runtime.load_seconds = 0.05
    model = spec("a")
    bench = make(model)
    first, second = use(bench, model), use(bench, model)
    assert first.load_seconds >= 0.05
    assert second.load_seconds == 0
    assert runtime.loads == {"a:latest": 1}


def test_no_more_than_max_concurrent_hold_a_permit_over_all_workers(make: Make):
    model = spec("a", max_concurrent=3)
    workers = [make(model) for _ in range(4)]
    inside, most, lock = 0, 0, threading.Lock()

    def enter():
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1

    with ThreadPoolExecutor(60) as pool:
        permits = list(pool.map(lambda n: use(workers[n % 4], model, enter), range(60)))
    assert len(permits) == 60
    assert most == 3
    state = workers[0].coordinator.read()
    assert (state.permits, state.tickets) == ({}, {})


def test_no_more_hold_a_permit_or_wait_than_the_slots_of_the_runtime_allow(make: Make):
    model = spec("a", max_concurrent=4, max_queue=1)
    bench = make(model, slots={"a:latest": 2})
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(bench.scheduler.permit(model, client()))
        with in_thread(lambda: use(bench, model)):
            eventually(lambda: bench.coordinator.read().waiting("a:latest"))
            with pytest.raises(errors.QueueFull):
                use(bench, model)
            held.close()


def full_queue(bench: Bench, model, use_seconds: float | None) -> errors.QueueFull:
    """Fill the queue of the model, and return the error of one more request."""
    with bench.coordinator.transaction() as transaction:
        transaction.state.adopt(model.tag, transaction.now)
        transaction.state.statistics_of(model.tag).use_seconds = use_seconds
        for n in range(model.capacity):
            transaction.state.join(f"x/{n}", bench.worker.id, model.tag, PERMIT, transaction.now)
    with pytest.raises(errors.QueueFull) as raised:
        use(bench, model)
    return raised.value


def test_a_full_queue_asks_to_wait_until_half_of_it_is_served(make: Make):
    model = spec("a", max_concurrent=2, max_queue=20)
    error = full_queue(make(model), model, use_seconds=6.0)
    assert error.retry_after == pytest.approx(6.0 * 6, abs=1.0)


def test_a_full_queue_asks_to_wait_for_a_guess_until_a_request_has_ended(make: Make):
    model = spec("a", max_concurrent=2, max_queue=20)
    assert full_queue(make(model), model, use_seconds=None).retry_after == 10.0


def test_permits_are_granted_in_order_of_arrival(make: Make):
    model = spec("a")
    bench = make(model)
    served = []
    with bench.scheduler.permit(model, client()), ThreadPoolExecutor(10) as pool:
        pass
    with ThreadPoolExecutor(10) as pool, bench.scheduler.permit(model, client()):
        for n in range(10):
            pool.submit(use, bench, model, lambda n=n: served.append(n))
            eventually(lambda n=n: len(bench.coordinator.read().tickets) == n + 1)
    assert served == list(range(10))


def test_many_requests_for_a_cold_model_cause_one_load(make: Make, runtime: FakeRuntime):
    runtime.load_seconds = 0.1
    model = spec("a", max_concurrent=4)
    workers = [make(model), make(model)]
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda n: use(workers[n % 2], model), range(40)))
    assert runtime.loads == {"a:latest": 1}


def test_the_runtime_never_holds_more_models_than_allowed(make: Make, runtime: FakeRuntime):
    models = [spec(name) for name in "abcde"]
    bench = make(*models, max_loaded=2)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: use(bench, models[n * 7 % 5]), range(100)))
    assert runtime.most_in_memory == 2


def test_the_least_recently_used_idle_model_makes_room(make: Make, runtime: FakeRuntime):
    a, b, c = (spec(name) for name in "abc")
    bench = make(a, b, c, max_loaded=2)
    for model in (a, b, a, c):
        use(bench, model)
    assert runtime.unloads == ["b:latest"]
    assert runtime.in_memory == ["a:latest", "c:latest"]


def test_a_busy_model_is_never_evicted(make: Make, runtime: FakeRuntime):
    a, b = spec("a"), spec("b")
    bench = make(a, b, max_loaded=1, patience=0.0)
    with ThreadPoolExecutor(1) as pool:
        with bench.scheduler.permit(a, client()):
            waiting = pool.submit(use, bench, b)
            eventually(lambda: bench.coordinator.read().tickets)
            assert runtime.unloads == []
        waiting.result()
    assert runtime.unloads == ["a:latest"]


def test_a_pinned_model_is_never_evicted_and_requests_for_its_place_are_refused(make: Make):
    a, b = spec("a", pinned=True), spec("b")
    bench = make(a, b, max_loaded=1)
    use(bench, a)
    with pytest.raises(errors.ModelUnavailable, match="pinned"):
        use(bench, b)


def test_a_full_queue_refuses_at_once_with_a_time_to_retry(make: Make):
    model = spec("a", max_queue=1)
    bench = make(model)
    with ThreadPoolExecutor(1) as pool:
        with bench.scheduler.permit(model, client()):
            waiting = pool.submit(use, bench, model)
            eventually(lambda: bench.coordinator.read().tickets)
            began = time.monotonic()
            with pytest.raises(errors.QueueFull) as refused:
                use(bench, model)
            assert time.monotonic() - began < 4  # a permit would take 10 s
            assert refused.value.retry_after
        waiting.result()


def test_a_request_that_continues_is_not_refused_for_a_full_queue(make: Make):
    model = spec("a", max_queue=1)
    bench = make(model)
    with ThreadPoolExecutor(2) as pool:
        with bench.scheduler.permit(model, client()):
            pool.submit(use, bench, model)
            eventually(lambda: bench.coordinator.read().tickets)
            continued = pool.submit(_continue, bench, model)
            eventually(lambda: len(bench.coordinator.read().tickets) == 2)
            with pytest.raises(errors.QueueFull):
                use(bench, model)
        continued.result(10)


def _continue(bench: Bench, model) -> None:
    with bench.scheduler.permit(model, client(), is_continued=True):
        pass


def test_a_queue_without_places_still_serves_requests_for_a_free_model(make: Make):
    model = spec("a", max_queue=0)
    bench = make(model)
    use(bench, model)
    use(bench, model)


def test_a_cold_model_takes_as_many_requests_as_a_loaded_one(make: Make, runtime: FakeRuntime):
    runtime.load_seconds = 0.2
    model = spec("a", max_concurrent=3, max_queue=1)
    bench = make(model)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: use(bench, model), range(4)))
    assert runtime.loads == {"a:latest": 1}


def test_a_request_that_waits_too_long_is_refused_and_leaves_no_ticket(make: Make):
    model = spec("a")
    bench = make(model, queue_timeout=0.1)
    with bench.scheduler.permit(model, client()), pytest.raises(errors.QueueTimeout):
        use(bench, model)
    assert bench.coordinator.read().tickets == {}


def test_loading_does_not_count_as_waiting_in_the_queue(make: Make, runtime: FakeRuntime):
    runtime.load_seconds = 0.3
    model = spec("a", max_concurrent=2)
    bench = make(model, queue_timeout=0.2)
    with ThreadPoolExecutor(2) as pool:
        permits = list(pool.map(lambda _: use(bench, model), range(2)))
    assert all(each.queue_seconds < 0.2 for each in permits)


def test_a_client_that_disconnects_leaves_the_queue_at_once(make: Make):
    model = spec("a")
    bench = make(model)
    impatient = client()
    with ThreadPoolExecutor(1) as pool, bench.scheduler.permit(model, client()):
        waiting = pool.submit(use, bench, model, by=impatient)
        eventually(lambda: bench.coordinator.read().tickets)
        impatient.mark_disconnected()
        with pytest.raises(errors.ClientDisconnected):
            waiting.result(timeout=1)
        assert bench.coordinator.read().tickets == {}


def test_a_failed_load_is_tried_once_more(make: Make, runtime: FakeRuntime):
    model = spec("a")
    runtime.load_errors["a:latest"] = [errors.LoadFailed("out of memory")]
    use(make(model), model)
    assert runtime.loads == {"a:latest": 2}


def test_a_load_that_takes_too_long_names_the_limit(make: Make, runtime: FakeRuntime):
    model = spec("a")
    runtime.load_errors["a:latest"] = [errors.LoadTimeout("too slow")]
    with pytest.raises(errors.LoadTimeout, match=r"a was not loaded within 10 s \(LOAD_TIMEOUT\)"):
        use(make(model), model)


def test_a_model_that_fails_twice_cools_down_and_its_tickets_get_the_reason(
    make: Make, runtime: FakeRuntime
):
    model, other = spec("a"), spec("b")
    runtime.load_seconds = 0.05
    runtime.load_errors["a:latest"] = [errors.LoadFailed("out of memory")] * 2
    bench = make(model, other)
    with ThreadPoolExecutor(5) as pool:
        requests = [pool.submit(use, bench, model) for _ in range(5)]
        for each in requests:
            with pytest.raises(errors.ModelUnavailable, match="out of memory"):
                each.result()
    with pytest.raises(errors.ModelUnavailable, match="out of memory") as refused:
        use(bench, model)
    assert 0 < refused.value.retry_after <= 10
    assert runtime.loads["a:latest"] == 2
    use(bench, other)


def test_a_model_that_has_cooled_down_is_tried_again(make: Make, runtime: FakeRuntime):
    model = spec("a")
    runtime.load_errors["a:latest"] = [errors.LoadFailed("out of memory")] * 2
    bench = make(model, cooldown=0.05)
    with pytest.raises(errors.ModelUnavailable):
        use(bench, model)
    time.sleep(0.06)
    use(bench, model)
    assert bench.coordinator.read().load_failures == {}


def test_an_unreachable_runtime_is_reported_and_no_model_cools_down(make: Make, runtime):
    model = spec("a")
    bench = make(model)
    runtime.down = errors.RuntimeUnavailable("the runtime cannot be reached")
    with pytest.raises(errors.RuntimeUnavailable):
        use(bench, model)
    runtime.down = None
    use(bench, model)


def test_load_waits_until_the_model_is_ready_even_if_all_its_permits_are_taken(make, runtime):
    model = spec("a")
    bench = make(model)
    bench.scheduler.load(model, client())
    assert runtime.in_memory == ["a:latest"]
    with bench.scheduler.permit(model, client()):
        bench.scheduler.load(model, client())


def test_unload_lets_the_model_drain_first(make: Make, runtime: FakeRuntime):
    model = spec("a", max_concurrent=2)
    bench = make(model)
    with ThreadPoolExecutor(1) as pool:
        with bench.scheduler.permit(model, client()):
            unloading = pool.submit(bench.scheduler.unload, model, client())
            eventually(lambda: bench.coordinator.read().tickets)
            assert runtime.in_memory == ["a:latest"]
        unloading.result()
    assert runtime.in_memory == []


def test_unload_of_a_model_that_does_not_drain_in_time_is_refused_and_changes_nothing(make):
    model = spec("a", max_concurrent=2)
    bench = make(model, drain_timeout=0.1)
    with bench.scheduler.permit(model, client()):
        with pytest.raises(errors.ModelBusy):
            bench.scheduler.unload(model, client())
        use(bench, model)


def test_unload_of_a_model_that_is_not_loaded_is_done_at_once(make: Make):
    model = spec("a")
    make(model).scheduler.unload(model, client())


def test_two_models_that_share_one_place_take_turns_by_group(make: Make, runtime: FakeRuntime):
    a, b = spec("a"), spec("b")
    bench = make(a, b, max_loaded=1, patience=30)
    with ThreadPoolExecutor(12) as pool, bench.scheduler.permit(a, client()):
        for n in range(12):
            pool.submit(use, bench, (a, b)[n % 2])
        eventually(lambda: len(bench.coordinator.read().tickets) == 12)
    assert runtime.loads == {"a:latest": 1, "b:latest": 1}


def test_a_starving_request_gets_a_place_although_the_other_queue_never_ends(make, runtime):
    a, b = spec("a"), spec("b")
    bench = make(a, b, max_loaded=1, patience=0.2)
    stop = threading.Event()

    def keep_using():
        while not stop.is_set():
            use(bench, a, lambda: time.sleep(0.01))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            pool.submit(keep_using)
        eventually(lambda: bench.coordinator.read().permits)
        began = time.monotonic()
        use(bench, b)
        waited = time.monotonic() - began
        stop.set()
    assert 0.15 < waited < 1.0


def test_an_untracked_model_is_unloaded_when_its_place_is_needed(make, runtime):
    runtime.in_memory = ["untracked:latest"]
    model = spec("a")
    use(make(model, max_loaded=1), model)
    assert runtime.most_in_memory == 1
    assert runtime.in_memory == ["a:latest"]


@pytest.fixture
def unloading_elsewhere(make: Make, runtime: FakeRuntime) -> Bench:
    """Return a worker with room for one model: a has the place, another ticket unloads x."""
    runtime.in_memory = ["x:latest"]
    bench = make(spec("a"), max_loaded=1)
    with bench.store.transaction() as state:
        state.begin_load(state.join("w/1", bench.worker.id, "a:latest", PERMIT, 0.0), 0.0)
        state.join("w/2", bench.worker.id, "x:latest", UNLOAD, 0.0).task = UNLOAD
        claim_untracked(state, {"x:latest"}, "w/2")
    return bench


def test_a_load_waits_for_a_model_that_another_ticket_unloads(unloading_elsewhere: Bench, runtime):
    with in_thread(lambda: unloading_elsewhere.model_loader.load(spec("a"), "w/1")):
        eventually(lambda: runtime.loaded_calls >= 2)
        assert not runtime.loads
        runtime.unload("x:latest")
        with unloading_elsewhere.store.transaction() as state:
            state.release({"x:latest"}, 1.0)
    assert runtime.in_memory == ["a:latest"]


def test_a_load_unloads_a_model_that_another_ticket_has_abandoned(
    unloading_elsewhere: Bench, runtime
):
    with in_thread(lambda: unloading_elsewhere.model_loader.load(spec("a"), "w/1")):
        eventually(lambda: runtime.loaded_calls >= 2)
        with unloading_elsewhere.store.transaction() as state:
            state.release({"x:latest"}, 1.0)
    assert runtime.unloads == ["x:latest"]
    assert runtime.in_memory == ["a:latest"]


def test_a_load_that_finds_no_room_in_time_is_abandoned(unloading_elsewhere: Bench, runtime):
    with pytest.raises(errors.RuntimeUnavailable, match="room within 2 s"):
        unloading_elsewhere.model_loader.load(spec("a"), "w/1")
    assert not runtime.loads


def test_an_unload_that_fails_leaves_a_model_that_was_adopted_meanwhile(make, runtime):
    a, b = spec("a"), spec("b")
    bench = make(a, b, max_loaded=1)
    use(bench, a)

    def fail(name: str) -> None:
        with bench.coordinator.transaction() as transaction:
            transaction.state.adopt("b:latest", transaction.now)
        raise errors.RuntimeUnavailable("no answer")

    runtime.unload = fail
    use(bench, b)
    assert [each.model for each in bench.coordinator.read().stuck.values()] == ["a:latest"]


def test_a_request_whose_ticket_was_lost_with_the_registry_file_joins_again(make: Make):
    model = spec("a")
    bench = make(model)
    with ThreadPoolExecutor(1) as pool:
        with bench.scheduler.permit(model, client()):
            waiting = pool.submit(use, bench, model)
            eventually(lambda: bench.coordinator.read().tickets)
            (ticket,) = bench.coordinator.read().tickets
            with bench.store.transaction() as state:
                del state.tickets[ticket]
            bench.worker.wake(bench.worker.id, ticket)
            eventually(lambda: bench.coordinator.read().tickets)
        assert waiting.result(timeout=5).load_seconds == 0
