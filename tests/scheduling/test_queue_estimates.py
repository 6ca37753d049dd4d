"""Estimates of the time in the queue: judged in virtual time, against what really came."""

from __future__ import annotations

import random
from statistics import median

import pytest

from bench.scheduling import Arrival, Machine
from mes.scheduling import policy
from mes.scheduling.fairness import Limits
from mes.scheduling.queue_estimates import expected_starts, queue_positions
from mes.scheduling.registry import PERMIT, Ticket
from mes.scheduling.serialization import encode
from mes.scheduling.state import State
from tests.fakes import spec

SAMPLE_SECONDS = 15.0
# Seconds of a generation, and of a load, of each model.
USES = {"a": 2.0, "b": 0.5, "c": 6.0, "d": 20.0}
LOADS = {"a": 4.0, "b": 2.0, "c": 8.0, "d": 15.0}


class JudgedMachine(Machine):
    """Samples the estimates of the waiting requests, and compares them with their real waits."""

    def __init__(self, limits: Limits, seed: int) -> None:
        super().__init__(limits)
        self.random = random.Random(seed)
        self.told: dict[str, list[tuple[float, float]]] = {}
        self.ratios: dict[str, list[float]] = {}
        self._next_sample = 0.0

    def use_seconds(self, ticket: Ticket) -> float:
        return USES[ticket.model] * self.random.lognormvariate(-0.125, 0.5)

    def load_seconds(self, ticket: Ticket) -> float:
        return LOADS[ticket.model] * self.random.uniform(0.8, 1.25)

    def _tick(self) -> None:
        super()._tick()
        if self.now >= self._next_sample:
            self._next_sample = self.now + SAMPLE_SECONDS
            starts = expected_starts(self.state, self.now, self.limits)
            for each in queue_positions(self.state, self.now, starts):
                if each.expected_seconds is not None:
                    told = (self.now, each.expected_seconds)
                    self.told.setdefault(each.request, []).append(told)

    def _arrive(self, number: int, arrival: Arrival) -> None:
        self.state.join(str(number), "w", arrival.model, "permit", self.now, str(number))

    def _record_waits(self, ticket: Ticket) -> None:
        super()._record_waits(ticket)
        for at, told in self.told.pop(ticket.id, ()):
            # A tenth of a second is of no interest to anybody, so it is no ratio either.
            ratio = max(0.1, told) / max(0.1, self.now - at)
            self.ratios.setdefault(ticket.model, []).append(ratio)


def hour(seed: int, seconds: float) -> list[Arrival]:
    """Return a mixed load: scripts with several requests in flight, people, and bursts."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []

    def script(model: str, clients: int, start: float, length: int) -> None:
        first = len(arrivals)
        for n in range(length):
            after = None if n < clients else first + n - clients
            arrivals.append(Arrival(start, model, after))

    def people(model: str, every: float) -> None:
        at = rng.expovariate(1 / every)
        while at < seconds:
            arrivals.append(Arrival(at, model))
            at += rng.expovariate(1 / every)

    for start in range(0, int(seconds), 600):
        script("a", 6, start + rng.uniform(0, 60), 60)
        script("c", 4, start + rng.uniform(60, 300), 20)
        for _ in range(8):
            arrivals.append(Arrival(start + 400.0, "d"))
    people("b", 8.0)
    people("a", 25.0)
    people("d", 120.0)
    return arrivals


def judged(places: int, seed: int, seconds: float) -> dict[str, list[float]]:
    specs = {m: spec(m, max_concurrent=2 if m in "ab" else 1) for m in USES}
    machine = JudgedMachine(Limits(places, None, models=specs), seed)
    machine.run(hour(seed, seconds))
    return machine.ratios


def check(ratios: dict[str, list[float]]) -> None:
    """Check the median within a factor of two, and those of single models within three."""
    every = [ratio for each in ratios.values() for ratio in each]
    assert len(every) > 50
    assert 0.5 <= median(every) <= 2.0
    for each in ratios.values():
        assert 1 / 3 <= median(each) <= 3.0 or len(each) < 20


@pytest.mark.parametrize("places", [1, 2, 4])
def test_the_median_estimate_of_a_mixed_load_is_right_within_a_factor_of_two(places):
    check(judged(places, seed=2, seconds=600.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("places", [1, 2, 4])
def test_the_median_estimate_of_a_mixed_hour_is_right_within_a_factor_of_two(places, seed):
    check(judged(places, seed=seed, seconds=3600.0))


def one_model(waiting: int, **limits: int) -> tuple[State, Limits]:
    """Return a state in which requests wait for a model that takes 3 s for each."""
    limits_ = Limits(1, 30.0, models={"a": spec("a", **limits)})
    state = State(1)
    state.adopt("a", 0.0)
    state.statistics_of("a").use_seconds = 3.0
    for n in range(waiting + limits.get("max_concurrent", 1)):
        state.join(f"w/{n}", "w", "a", PERMIT, 0.0, str(n))
    policy.settle(state, 0.0, limits_)
    return state, limits_


def test_requests_of_a_model_in_memory_start_one_after_the_other():
    state, limits = one_model(3)
    assert list(expected_starts(state, 0.0, limits).values()) == pytest.approx([3.0, 6.0, 9.0])


def test_as_many_start_together_as_may_run():
    state, limits = one_model(4, max_concurrent=2)
    starts = expected_starts(state, 1.0, limits)
    assert list(starts.values()) == pytest.approx([3.0, 3.0, 6.0, 6.0])


def test_the_requests_behind_those_that_are_followed_start_at_the_same_pace():
    state, limits = one_model(200)
    starts = list(expected_starts(state, 0.0, limits).values())
    assert starts == pytest.approx([3.0 * n for n in range(1, 201)])


def test_a_request_that_runs_longer_than_usual_makes_the_others_start_later():
    state, limits = one_model(1)
    (start,) = expected_starts(state, 30.0, limits).values()
    assert start >= 39.0


def test_nothing_is_expected_before_the_first_request_has_ended():
    state, limits = one_model(2)
    state.statistics.clear()
    assert expected_starts(state, 0.0, limits) == {}
    assert [each.expected_seconds for each in queue_positions(state, 1.0, {})] == [None, None]


def test_an_estimate_changes_nothing():
    state, limits = one_model(30)
    before = encode(state)
    expected_starts(state, 5.0, limits)
    assert encode(state) == before


def test_a_request_for_a_model_that_is_not_in_memory_waits_for_those_that_overtake_it():
    limits = Limits(1, 30.0, models={name: spec(name, max_concurrent=2) for name in "ab"})
    state = State(1)
    state.adopt("a", 0.0)
    for name in "ab":
        state.statistics_of(name).use_seconds = 1.0
        state.statistics_of(name).load_seconds = 2.0
    for n in range(100):
        state.join(f"w/a{n}", "w", "a", PERMIT, 0.6 * n)
        policy.settle(state, 0.6 * n, limits)
        state.leave(f"w/a{n - 1}", 0.6 * n + 0.4)
    state.join("w/b", "w", "b", PERMIT, 60.0)
    policy.settle(state, 60.0, limits)
    # Requests for a will go on to arrive, so that b gets its turn when its patience is over.
    assert 85.0 <= expected_starts(state, 60.0, limits)["w/b"] <= 100.0
