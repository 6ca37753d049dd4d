"""The policy: its invariants hold after any sequence of events, and examples of its rules."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mes.scheduling import policy, runtime_places
from mes.scheduling.fairness import Limits
from mes.scheduling.policy import Evict, Grant, Load, Refuse, Unload
from mes.scheduling.queue_estimates import expected_starts, queue_positions
from mes.scheduling.registry import (
    DELETED,
    LOAD,
    LOADING,
    PERMIT,
    REPLACED,
    UNLOAD,
    LoadFailure,
    Refusal,
    StuckRunner,
    Ticket,
)
from mes.scheduling.serialization import decode, encode
from mes.scheduling.state import State
from tests.fakes import spec

MODELS = "abcd"
WORKERS = ("w1", "w2", "w3")
PATIENCE = 10.0


class Policy(RuleBasedStateMachine):
    """Arrivals, ends, deaths, failures, stuck models and the passing of time, in any order."""

    @initialize(places=st.integers(1, 3), pinned=st.booleans(), concurrent=st.integers(1, 3))
    def begin(self, places: int, pinned: bool, concurrent: int) -> None:
        specs = [
            spec(m, max_concurrent=concurrent, pinned=pinned and m == "a" and places > 1)
            for m in MODELS
        ]
        self.limits = Limits(places, PATIENCE, models={each.tag: each for each in specs})
        self.state = State(places)
        self.now = 0.0
        self.count = 0
        self.granted: dict[str, int] = {}
        self.ended: set[str] = set()
        self.joined: dict[str, Ticket] = {}

    def settle(self) -> None:
        """Let the policy decide, and check each decision as it is made."""
        self.evict_the_surplus()
        self.state.pinned = frozenset(map(self.state.place_of, self.limits.pinned))
        while (decision := policy.decide(self.state, self.now, self.limits)) is not None:
            match decision:
                case Grant(ticket):
                    self.check_grant(ticket)
                case Unload(_, victim) | Evict(_, victim):
                    assert not any(self.state.in_flight(name) for name in self.names_of(victim))
                    assert self.state.ready(victim)
                    is_requested = any(
                        t.wants == UNLOAD and self.state.place_of(t.model) == victim
                        for t in self.state.tickets.values()
                    )
                    is_pinned = self.limits.pinned & self.names_of(victim)
                    assert is_requested or not (is_pinned or self.pauses(victim))
                case Refuse(ticket):
                    state = self.state
                    assert state.stuck or state.unload_failures or state.found_places
                    assert not self.state.in_memory(ticket.model)
                case Load(ticket):
                    assert not self.state.in_memory(ticket.model)
                    state = self.state
                    taken = len(state.registry) + len(state.unloading) + len(state.stuck)
                    assert taken < self.limits.max_loaded
            decision.apply(self.state, self.now)
            if isinstance(decision, Evict):
                assert decision.victim in self.state.unloading
        # The next worker reads the state that this one has written.
        assert encode(decode(encode(self.state), self.limits.max_loaded)) == encode(self.state)

    def pauses(self, victim: str) -> bool:
        failure = self.state.unload_failures.get(victim)
        return failure is not None and failure.until > 0

    def evict_the_surplus(self) -> None:
        """Let idle models leave that the runtime has no place for, as it does by itself."""
        for place in filter(self.state.ready, list(self.state.registry)):
            if self.state.surplus and not self.state.in_use(place):
                self.state.look_for(place, listed=False, now=self.now)

    def names_of(self, place: str) -> set[str]:
        return {tag for tag in self.limits.models if self.state.place_of(tag) == place}

    def check_grant(self, ticket: Ticket) -> None:
        """Check the order of arrival within a model, and that no starving request is overtaken."""
        assert ticket.number > self.granted.get(ticket.model, 0)
        self.granted[ticket.model] = ticket.number
        if self.limits.max_loaded == 1 and self.state.swap_began is None:
            for other in self.state.tickets.values():
                if other.number < ticket.number and other.overtaken_at is not None:
                    waits = not self.state.in_memory(other.model) and other.wants != UNLOAD
                    assert not waits or self.now - other.overtaken_at <= PATIENCE + 1e-6

    @rule(model=st.sampled_from(MODELS), worker=st.sampled_from(WORKERS))
    def arrive(self, model: str, worker: str) -> None:
        self.join(model, worker, PERMIT)

    @rule(model=st.sampled_from(MODELS), wants=st.sampled_from([LOAD, UNLOAD]))
    def request_by_hand(self, model: str, wants: str) -> None:
        self.join(model, "w1", wants)

    def join(self, model: str, worker: str, wants: str) -> None:
        if wants != UNLOAD and self.limits.why_never(self.state, f"{model}:latest"):
            return
        self.count += 1
        name = f"{worker}/{self.count}"
        ticket = self.state.join(name, worker, f"{model}:latest", wants, self.now)
        self.joined[name] = ticket
        self.settle()

    @precondition(lambda self: self.state.permits)
    @rule(data=st.data())
    def finish_a_generation(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(sorted(self.state.permits)))
        self.state.leave(permit, self.now)
        self.settle()

    @precondition(lambda self: self.state.tickets)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        idle = sorted(n for n, t in self.state.tickets.items() if t.task is None)
        if idle:
            self.state.leave(data.draw(st.sampled_from(idle)), self.now)
            self.settle()

    @precondition(lambda self: any(t.task for t in self.state.tickets.values()))
    @rule(data=st.data(), works=st.sampled_from([True, True, True, False]))
    def finish_a_task(self, data: st.DataObject, works: bool) -> None:
        busy = sorted(n for n, t in self.state.tickets.items() if t.task)
        ticket = self.state.tickets[data.draw(st.sampled_from(busy))]
        if ticket.task == UNLOAD and works:
            self.state.release({ticket.victim or ""}, self.now)
            self.state.finish_task(ticket.id)
        elif ticket.task == UNLOAD:
            self.fail_unload(ticket)
        elif works and (resident := self.state.loading_by(ticket.id)):
            self.state.finish_load(resident.model, self.now, size_bytes=1, digest="1")
            self.state.finish_task(ticket.id)
        else:
            self.fail_load(ticket)
        self.settle()

    def fail_unload(self, ticket: Ticket) -> None:
        victim = ticket.victim or ""
        failure = LoadFailure(1, self.now + 10, "it stays")
        self.state.keep_after_failed_unload(victim, failure, self.now, digest="1")
        self.state.finish_task(ticket.id)
        for each in list(self.state.tickets.values()):
            if each.wants == UNLOAD and self.state.place_of(each.model) == victim:
                self.state.leave(each.id, self.now)

    def fail_load(self, failed: Ticket) -> None:
        model = failed.model
        if resident := self.state.loading_by(failed.id):
            self.state.drop(resident.model, self.now)
        self.state.finish_task(failed.id)
        waiting = [t for t in self.state.tickets.values() if t.model == model and not t.task]
        for ticket in waiting:
            self.state.refuse(ticket, Refusal(ticket.worker, "model_unavailable", "no"))
            self.state.leave(ticket.id, self.now)

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        self.state.release_dead_worker(worker, self.now)
        self.settle()
        assert worker not in self.state.owners()

    @precondition(lambda self: list(self.state.registry))
    @rule(data=st.data())
    def lose_a_model(self, data: st.DataObject) -> None:
        ready = [m for m in self.state.registry if self.state.ready(m)]
        if ready:
            model = data.draw(st.sampled_from(sorted(ready)))
            self.state.look_for(model, listed=False, now=self.now)
            self.settle()

    @rule(listed=st.booleans())
    def look_for_missing_models(self, listed: bool) -> None:
        for model in filter(self.state.missing, list(self.state.registry)):
            self.state.look_for(model, listed=listed, now=self.now)
        self.settle()

    # The runtime's memory

    @precondition(lambda self: any(map(self.state.ready, self.state.registry)))
    @rule(data=st.data(), cause=st.sampled_from([DELETED, REPLACED]), loaded_again=st.booleans())
    def a_model_gets_stuck(self, data: st.DataObject, cause: str, loaded_again: bool) -> None:
        """A model is deleted or replaced. A request may have loaded the new version already."""
        ready = sorted(filter(self.state.ready, self.state.registry))
        place = data.draw(st.sampled_from(ready))
        self.count += 1
        self.state.add_stuck(StuckRunner(place, str(self.count), cause, self.now), self.now)
        if cause == REPLACED and loaded_again:
            self.state.correct(place, digest=f"newer than {self.count}")
        else:
            self.state.drop(place, self.now)
        self.settle()

    @precondition(lambda self: self.state.stuck or self.state.unload_failures)
    @rule(data=st.data())
    def a_stuck_model_leaves(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted({**self.state.stuck, **self.state.unload_failures})))
        if key in self.state.stuck:
            self.state.forget_stuck({key}, self.now)
        elif key in self.state.registry:
            self.state.look_for(key, listed=False, now=self.now)
        self.settle()

    @precondition(lambda self: self.state.unload_failures)
    @rule(data=st.data())
    def the_pause_of_a_victim_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.state.unload_failures)))
        self.state.end_pauses([key])
        self.settle()

    @rule(held=st.integers(1, 2))
    def the_runtime_evicts_a_model_by_itself(self, held: int) -> None:
        """It holds fewer models than configured."""
        runtime_places.note_eviction(self.state, held, self.now, is_certain=True)
        self.settle()

    @precondition(lambda self: self.state.found_places)
    @rule()
    def more_places_are_tried(self) -> None:
        runtime_places.try_more(self.state, self.now + 1e6)
        self.settle()

    @precondition(lambda self: any(r.phase == LOADING for r in self.state.registry.residents()))
    @rule(waits=st.booleans())
    def a_load_stalls(self, waits: bool) -> None:
        loading = [r.model for r in self.state.registry.residents() if r.phase == LOADING]
        self.state.stalled[loading[0]] = waits
        self.settle()

    @rule(model=st.sampled_from(MODELS[1:]), of=st.sampled_from(MODELS))
    def a_name_becomes_another(self, model: str, of: str) -> None:
        """A model is copied to a name, or a copy gets weights of its own."""
        model, place = f"{model}:latest", self.state.place_of(f"{of}:latest")
        self.state.aliases = {n: p for n, p in self.state.aliases.items() if model not in (n, p)}
        if self.state.place_of(place) != model and place != model:
            self.state.aliases[model] = self.state.place_of(place)
        for resident in self.state.registry.by_last_use():
            if self.state.place_of(resident.model) != resident.model:
                self.state.move(resident.model, self.state.place_of(resident.model))
        self.settle()

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    @invariant()
    def limits_hold(self) -> None:
        state = self.state
        assert len(state.registry) + len(state.unloading) <= self.limits.max_loaded
        for each in self.limits.models.values():
            assert state.in_flight(each.tag) <= each.max_concurrent

    @invariant()
    def every_task_has_a_ticket(self) -> None:
        tickets = self.state.tickets
        loading = [r for r in self.state.registry.residents() if r.phase == LOADING]
        assert all(each.ticket in tickets for each in loading)
        assert all(by in tickets for by in self.state.unloading.values())

    @invariant()
    def every_wait_has_an_end(self) -> None:
        """A ticket waits for a permit in use, a task that runs, or a missing model."""
        if any(t.task is None for t in self.state.tickets.values()):
            busy = self.state.permits or any(t.task for t in self.state.tickets.values())
            assert busy or any(map(self.state.missing, self.state.registry))

    def teardown(self) -> None:
        """Complete all that has begun; no ticket may be left."""
        if not hasattr(self, "state"):
            return
        for _ in range(10 * len(self.joined) + 50):
            for name in sorted(self.state.permits):
                self.state.leave(name, self.now)
            for ticket in list(self.state.tickets.values()):
                if ticket.task == UNLOAD:
                    self.state.release({ticket.victim or ""}, self.now)
                    self.state.finish_task(ticket.id)
                elif ticket.task == LOAD and (resident := self.state.loading_by(ticket.id)):
                    self.state.finish_load(resident.model, self.now)
                    self.state.finish_task(ticket.id)
                elif ticket.task == LOAD:
                    self.fail_load(ticket)
            self.look_for_missing_models(listed=False)
            self.now += 1.0
            self.settle()
        assert self.state.tickets == {}


Policy.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPolicy = Policy.TestCase


def two_in_memory(patience: float = 5.0, **first: object) -> tuple[State, Limits]:
    """Return a state with models a and b in memory, both in use; a request for c waits."""
    specs = [spec("a", max_concurrent=9, **first), spec("b", max_concurrent=9), spec("c")]
    limits = Limits(2, patience, models={each.tag: each for each in specs})
    state = State(2)
    for model in ("a:latest", "b:latest"):
        state.adopt(model, 0.0)
        state.join(f"w/{model}", "w", model, PERMIT, 0.0)
    policy.settle(state, 0.0, limits)
    state.join("w/c", "w", "c:latest", PERMIT, 1.0)
    return state, limits


def test_a_pinned_model_stays_although_it_is_idle_and_a_place_is_needed():
    state, limits = two_in_memory(pinned=True)
    state.leave("w/a:latest", 2.0)
    assert policy.settle(state, 2.0, limits) == []
    state.leave("w/b:latest", 3.0)
    assert [made.victim for made in policy.settle(state, 3.0, limits)] == ["b:latest"]


def test_a_drain_that_has_begun_continues():
    state, limits = two_in_memory()
    for n, model in enumerate(["a:latest", "b:latest"]):
        state.join(f"w/late{n}", "w", model, PERMIT, 2.0)
    policy.settle(state, 2.0, limits)
    policy.settle(state, 8.0, limits)
    drained = state.draining
    assert len(drained) == 1
    for n, model in enumerate([*drained, "a:latest", "b:latest"]):
        _ = state.registry[model]
        policy.settle(state, 8.0 + n, limits)
        assert state.draining == drained


def test_a_draining_model_serves_no_later_request_until_the_drain_is_cancelled():
    state, limits = two_in_memory()
    state.join("w/late", "w", "a:latest", PERMIT, 2.0)
    state.join("w/later", "w", "b:latest", PERMIT, 2.0)
    policy.settle(state, 2.0, limits)
    policy.settle(state, 8.0, limits)
    (victim,) = state.draining
    state.join("w/after", "w", victim, PERMIT, 9.0)
    assert policy.settle(state, 9.0, limits) == []
    state.leave("w/c", 10.0)
    granted = [made.ticket.id for made in policy.settle(state, 10.0, limits) if made.ticket]
    assert granted == ["w/after"]


def test_a_starving_request_is_served_before_the_rest_of_a_batch():
    specs = [spec("a", max_concurrent=9), spec("b"), spec("c")]
    limits = Limits(1, 5.0, models={each.tag: each for each in specs})
    state = State(1)
    state.adopt("a:latest", 0.0)
    for name in ("a1", "b2", "c3", "b4", "a5"):
        state.join(f"w/{name}", "w", f"{name[0]}:latest", PERMIT, 0.0)
    policy.settle(state, 0.0, limits)
    policy.settle(state, 6.0, limits)
    for name in ("w/a1", "w/a5"):
        state.leave(name, 6.0)
    policy.settle(state, 6.0, limits)
    state.release({"a:latest"}, 6.0)
    state.finish_task("w/b2")
    policy.settle(state, 6.0, limits)
    state.finish_load("b:latest", 6.0)
    state.finish_task("w/b2")
    policy.settle(state, 6.0, limits)
    assert list(state.permits) == ["w/b2"]
    state.leave("w/b2", 7.0)
    policy.settle(state, 7.0, limits)
    assert state.permits == {}
    assert state.tickets["w/c3"].victim == "b:latest"


def test_a_ticket_that_leaves_before_its_load_is_done_leaves_no_model_behind():
    limits = Limits(1, 5.0, models={each.tag: each for each in (spec("a"), spec("b"))})
    state = State(1)
    state.join("w/a", "w", "a:latest", PERMIT, 0.0)
    state.join("w/b", "w", "b:latest", PERMIT, 0.0)
    policy.settle(state, 0.0, limits)
    assert state.tickets["w/a"].task == LOAD
    state.leave("w/a", 1.0)
    policy.settle(state, 1.0, limits)
    assert list(state.registry) == ["b:latest"]
    assert state.tickets["w/b"].task == LOAD


def interleaved(requests: int, *, patience: float) -> int:
    """Return the number of loads for interleaved requests for two models, with room for one."""
    from bench.scheduling import Arrival, Machine

    limits = Limits(1, patience, models={m: spec(m, max_concurrent=1) for m in "ab"})
    arrivals = [Arrival(0.0, "ab"[n % 2]) for n in range(requests)]
    outcome = Machine(limits).run(arrivals)
    assert outcome.served == requests
    assert outcome.loads <= 2 * outcome.makespan / patience + 2
    assert outcome.longest_overtaken <= patience + 1e-6
    return outcome.loads


def test_with_patience_longer_than_the_work_two_models_cost_two_loads():
    assert interleaved(200, patience=1000) == 2


@pytest.mark.parametrize("patience", [2.0, 5.0, 10.0, 40.0])
def test_with_less_patience_loads_are_bounded_by_it(patience: float):
    assert interleaved(200, patience=patience) > 2


def test_the_default_patience_is_ten_loads_within_bounds():
    state = State(1)
    limits = Limits(1, None, patience_bounds=(5.0, 120.0))
    assert limits.patience(state) == 5.0
    state.statistics_of("a:latest").load_seconds = 3.0
    assert limits.patience(state) == 30.0
    assert limits.patience(state, waiting_models=3) == 90.0
    state.statistics_of("b:latest").load_seconds = 60.0
    assert limits.patience(state) == 120.0


def budget(*sizes_gb: float, budget_gb: float = 10.0) -> tuple[State, Limits]:
    specs = [spec(name, size_gb=size) for name, size in zip("abcd", sizes_gb, strict=False)]
    models = {each.tag: each for each in specs}
    return State(4), Limits(4, 5.0, memory_bytes=int(budget_gb * 1e9), models=models)


def test_models_are_unloaded_until_the_next_one_fits_into_the_memory_budget():
    state, limits = budget(4, 4, 8)
    for model in ("a:latest", "b:latest"):
        state.adopt(model, 0.0)
    wanted = state.join("w/c", "w", "c:latest", PERMIT, 1.0)
    for victim in ("a:latest", "b:latest"):
        assert policy.settle(state, 1.0, limits) == [Evict(wanted, victim)]
        state.release({victim}, 1.0)
        state.finish_task("w/c")
    assert policy.settle(state, 1.0, limits) == [Load(wanted)]


def test_a_size_that_the_runtime_reports_takes_precedence_over_the_catalog():
    state, limits = budget(4, 4)
    state.adopt("a:latest", 0.0)
    state.statistics_of("a:latest").size_bytes = int(7e9)
    wanted = state.join("w/b", "w", "b:latest", PERMIT, 1.0)
    assert policy.settle(state, 1.0, limits) == [Evict(wanted, "a:latest")]


def test_a_model_that_can_never_fit_is_refused_with_the_numbers():
    state, limits = budget(12, 4)
    assert "needs 12.0 GB" in (limits.why_never(state, "a:latest") or "")
    assert limits.why_never(state, "b:latest") is None


def test_queue_positions_have_an_expected_start():
    state, limits = two_in_memory()
    state.statistics_of("b:latest").use_seconds = 3.0
    for n in range(20):
        state.join(f"w/b{n}", "w", "b:latest", PERMIT, 2.0, f"request-{n}")
    policy.settle(state, 2.0, limits)
    starts = expected_starts(state, 4.0, limits)
    positions = {each.request: each for each in queue_positions(state, 4.0, starts)}
    first, last = positions["request-8"], positions["request-19"]
    assert (first.position, last.position) == (1, 12)
    assert first.waited_seconds == 2.0
    assert 0 < (first.expected_seconds or 0) < (last.expected_seconds or 0) < 20


def test_a_request_that_waits_is_refused_once_stuck_models_have_all_places():
    state, limits = two_in_memory()
    policy.settle(state, 2.0, limits)
    for model in ("a:latest", "b:latest"):
        state.add_stuck(StuckRunner(model, "1", REPLACED, 3.0), 3.0)
        state.drop(model, 3.0)
    (refused,) = policy.settle(state, 3.0, limits)
    assert isinstance(refused, Refuse)
    assert "an earlier version of a:latest" in state.refusals["w/c"].detail


def test_a_victim_that_did_not_go_is_passed_over_and_serves_its_own_requests():
    state, limits = two_in_memory()
    for model in ("a:latest", "b:latest"):
        state.leave(f"w/{model}", 2.0)
    (first,) = policy.settle(state, 2.0, limits)
    failure = LoadFailure(1, 99.0, "it stays")
    state.keep_after_failed_unload("a:latest", failure, 3.0)
    state.finish_task("w/c")
    (second,) = policy.settle(state, 3.0, limits)
    assert (first.victim, second.victim) == ("a:latest", "b:latest")
    again = state.join("w/again", "w", "a:latest", PERMIT, 4.0)
    assert policy.settle(state, 4.0, limits) == [Grant(again)]


def test_victims_that_did_not_go_are_chosen_again_after_a_pause():
    state, limits = two_in_memory()
    for model in ("a:latest", "b:latest"):
        state.leave(f"w/{model}", 2.0)
    for model in ("a:latest", "b:latest"):
        (unload,) = policy.settle(state, 2.0, limits)
        state.keep_after_failed_unload(model, LoadFailure(1, 99.0, "it stays"), 3.0)
        state.finish_task("w/c")
    (refused,) = policy.settle(state, 3.0, limits)
    assert isinstance(refused, Refuse)
    state.join("w/d", "w", "c:latest", PERMIT, 4.0)
    state.end_pauses(["b:latest"])
    (unload,) = policy.settle(state, 4.0, limits)
    assert unload.victim == "b:latest"


def test_a_victim_that_has_left_memory_while_in_use_is_no_exception_any_more():
    state, _ = two_in_memory()
    state.unload_failures["a:latest"] = LoadFailure(1, 99.0, "it stays")
    state.look_for("a:latest", listed=False, now=3.0)
    state.look_for("a:latest", listed=True, now=4.0)
    assert not state.kept("a:latest")


def test_names_of_one_place_have_their_own_limits_and_are_unloaded_together():
    limits = Limits(1, 5.0, models={each.tag: each for each in (spec("a"), spec("b"))})
    state = State(1, aliases={"b:latest": "a:latest"})
    for name in ("a1", "b1", "a2", "b2"):
        state.join(f"w/{name}", "w", f"{name[0]}:latest", PERMIT, 0.0)
    policy.settle(state, 0.0, limits)
    state.finish_load("a:latest", 1.0)
    state.finish_task("w/a1")
    policy.settle(state, 1.0, limits)
    assert list(state.permits) == ["w/a1", "w/b1"]
    for name in ("w/a2", "w/b2", "w/a1"):
        state.leave(name, 2.0)
    unload = state.join("w/unload", "w", "a:latest", UNLOAD, 3.0)
    assert policy.settle(state, 3.0, limits) == []
    state.leave("w/b1", 4.0)
    assert policy.settle(state, 4.0, limits) == [Unload(unload, "a:latest")]
