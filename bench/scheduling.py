"""Compare scheduling policies in virtual time, without HTTP and runtime, with the policy of MES.

    python -m bench.scheduling

Each workload is served by the policy of MES, by the same policy with infinite patience (grouping
alone), and by a plain queue in order of arrival with LRU eviction. The columns are the makespan as
a multiple of the best possible one (each model loaded once), the loads, the longest time from when
a request was first overtaken by a later one until it got its permit (without swaps), and the
longest wait.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mes.scheduling import policy
from mes.scheduling.fairness import Limits
from mes.scheduling.registry import Ticket
from mes.scheduling.state import State
from tests.fakes import spec

LOAD_SECONDS = 2.0
UNLOAD_SECONDS = 0.2
USE_SECONDS = 0.5
# The interval at which the leader applies the policy.
TICK_SECONDS = 0.25
NAMES = "abcdefghij"


@dataclass(frozen=True)
class Arrival:
    """A request; its client sends it when the request with the number `after` ends, if any."""

    at: float
    model: str
    after: int | None = None


@dataclass
class Outcome:
    """The result of a policy for a workload."""

    makespan: float = 0.0
    loads: int = 0
    longest_wait: float = 0.0
    longest_overtaken: float = 0.0
    served: int = 0


@dataclass
class Machine:
    """A runtime in virtual time under the policy of MES."""

    limits: Limits
    state: State = field(init=False)
    now: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.state = State(self.limits.max_loaded)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._followers: dict[int, list[tuple[int, Arrival]]] = {}

    def run(self, arrivals: list[Arrival]) -> Outcome:
        for number, arrival in enumerate(arrivals):
            if arrival.after is None:
                self._at(arrival.at, lambda n=number, a=arrival: self._arrive(n, a))
            else:
                self._followers.setdefault(arrival.after, []).append((number, arrival))
        self._at(TICK_SECONDS, self._tick)
        while self._events and self.outcome.served < len(arrivals):
            self.now, _, act = heapq.heappop(self._events)
            act()
            self._carry_out(policy.settle(self.state, self.now, self.limits))
        self.outcome.makespan = self.now
        self.outcome.loads = sum(each.loads for each in self.state.statistics.values())
        return self.outcome

    def use_seconds(self, ticket: Ticket) -> float:
        """Return how long the request holds its permit."""
        return USE_SECONDS

    def load_seconds(self, ticket: Ticket) -> float:
        """Return how long the load of the ticket's model takes."""
        return LOAD_SECONDS

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    def _tick(self) -> None:
        self._at(self.now + TICK_SECONDS, self._tick)

    def _arrive(self, number: int, arrival: Arrival) -> None:
        self.state.join(str(number), "w", arrival.model, "permit", self.now)

    def _carry_out(self, decisions: list[policy.Decision]) -> None:
        for decision in decisions:
            match decision:
                case policy.Grant(ticket):
                    self._record_waits(ticket)
                    self._at(self.now + self.use_seconds(ticket), lambda t=ticket: self._finish(t))
                case policy.Load(ticket):
                    self._at(self.now + self.load_seconds(ticket), lambda t=ticket: self._loaded(t))
                case policy.Unload(ticket, victim) | policy.Evict(ticket, victim):
                    self._at(self.now + UNLOAD_SECONDS, lambda t=ticket, v=victim: self._gone(t, v))

    def _record_waits(self, ticket: Ticket) -> None:
        self.outcome.longest_wait = max(self.outcome.longest_wait, self.now - ticket.arrived_at)
        if ticket.overtaken_at is not None:
            overtaken = self.now - ticket.overtaken_at
            self.outcome.longest_overtaken = max(self.outcome.longest_overtaken, overtaken)

    def _finish(self, ticket: Ticket) -> None:
        self.state.leave(ticket.id, self.now)
        self.outcome.served += 1
        for number, arrival in self._followers.get(int(ticket.id), ()):
            self._arrive(number, arrival)

    def _loaded(self, ticket: Ticket) -> None:
        self.state.finish_load(ticket.model, self.now)
        self.state.finish_task(ticket.id)

    def _gone(self, ticket: Ticket, victim: str) -> None:
        self.state.release({victim}, self.now)
        self.state.finish_task(ticket.id)


def in_order(arrivals: list[Arrival], limits: Limits) -> Outcome:
    """Serve a plain queue in order of arrival; evict the least recently used model for a load."""
    outcome, ends, loaded = Outcome(), {}, []
    busy: dict[str, list[float]] = {}
    queue = [(a.at if a.after is None else float("inf"), n, a) for n, a in enumerate(arrivals)]
    now = 0.0
    while queue:
        queue = [(at if a.after is None else ends.get(a.after, at), n, a) for at, n, a in queue]
        queue.sort(key=lambda entry: entry[:2])
        at, number, arrival = queue.pop(0)
        now = max(now, at)
        if arrival.model not in loaded:
            if len(loaded) == limits.max_loaded:
                victim = loaded.pop(0)
                now = max([now, *busy.pop(victim, [])]) + UNLOAD_SECONDS
            now += LOAD_SECONDS
            outcome.loads += 1
        else:
            loaded.remove(arrival.model)
        loaded.append(arrival.model)
        running = busy.setdefault(arrival.model, [])
        if len(running) >= limits.max_concurrent(arrival.model):
            running.sort()
            now = max(now, running.pop(0))
        ends[number] = now + USE_SECONDS
        running.append(ends[number])
        outcome.longest_wait = max(outcome.longest_wait, now - at)
    outcome.makespan = max(ends.values())
    return outcome


def open_loop(models: Iterator[str] | list[str], every: float) -> list[Arrival]:
    return [Arrival(number * every, model) for number, model in enumerate(models)]


def closed_loop(models: list[str], clients: int) -> list[Arrival]:
    """Return the arrivals of clients that send a request when their last one has ended."""
    return [
        Arrival(0.0, model, None if number < clients else number - clients)
        for number, model in enumerate(models)
    ]


def bursts(models: list[str], size: int, every: float) -> list[Arrival]:
    return [Arrival(number // size * every, model) for number, model in enumerate(models)]


def workloads(requests: int) -> dict[str, tuple[int, int, list[Arrival]]]:
    """Return, by name, the places in memory, the number of models, and the arrivals."""
    choose = random.Random(7)
    zipf = choose.choices(NAMES, [1 / (n + 1) for n in range(10)], k=requests)
    hot = choose.choices(NAMES, [10, *[0.5] * 9], k=requests)
    turns = [NAMES[n % 3] for n in range(requests)]
    return {
        "2 models in turn, all at once": (
            1,
            2,
            open_loop([NAMES[n % 2] for n in range(requests)], 0),
        ),
        "3 models in turn, all at once": (1, 3, open_loop(turns, 0)),
        "3 models in turn, 6 clients": (1, 3, closed_loop(turns, 6)),
        "Zipf over 10, 2 places, steady": (2, 10, open_loop(zipf, USE_SECONDS)),
        "Zipf over 10, 2 places, bursts": (2, 10, bursts(zipf, 40, 60.0)),
        "one hot, nine cold, 2 places": (2, 10, open_loop(hot, USE_SECONDS)),
    }


def best(arrivals: list[Arrival], limits: Limits) -> float:
    """Return the makespan if each model is loaded once and the places are always busy."""
    counts: dict[str, int] = {}
    for arrival in arrivals:
        counts[arrival.model] = counts.get(arrival.model, 0) + 1
    work = sum(
        LOAD_SECONDS + -(-count // limits.max_concurrent(model)) * USE_SECONDS
        for model, count in counts.items()
    )
    last = max((a.at for a in arrivals if a.after is None), default=0.0) + USE_SECONDS
    return max(work / limits.max_loaded, last)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=240, help="in each workload (240)")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds, virtual (30)")
    parser.add_argument("--concurrent", type=int, default=2, help="generations a model (2)")
    options = parser.parse_args()
    print(
        f"{'workload':32} {'policy':9} {'x best':>7} {'loads':>6} {'overtaken s':>12} {'wait s':>7}"
    )
    for name, (places, models, arrivals) in workloads(options.requests).items():
        by_tag = {name: spec(name, max_concurrent=options.concurrent) for name in NAMES[:models]}
        patient = Limits(places, options.patience, models=by_tag)
        endless = Limits(places, float("inf"), models=by_tag)
        for label, outcome in (
            ("mes", Machine(patient).run(arrivals)),
            ("grouping", Machine(endless).run(arrivals)),
            ("in order", in_order(arrivals, patient)),
        ):
            show(name, label, outcome, outcome.makespan / best(arrivals, patient))


def show(workload: str, label: str, outcome: Outcome, ratio: float) -> None:
    overtaken = "-" if label == "in order" else f"{outcome.longest_overtaken:.1f}"
    print(
        f"{workload:32} {label:9} {ratio:7.2f} {outcome.loads:6} {overtaken:>12} "
        f"{outcome.longest_wait:7.1f}"
    )


if __name__ == "__main__":
    main()
