"""What is in the runtime's memory, by property: however swaps go wrong, never more than may be."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mes.scheduling import policy
from mes.scheduling.fairness import Limits
from mes.scheduling.registry import LOAD, PERMIT, UNLOAD, Refusal, Ticket
from mes.scheduling.state import State, claim_untracked, overfull
from tests.fakes import spec

MODELS = "abcde"
WORKERS = ("w1", "w2", "w3")

LOADING, LOADED, LEAVING = "loading", "loaded", "unloading"


@dataclass
class Errand:
    """How far somebody has come with a duty: what it saw, what it sees out, what it has begun."""

    seen: set[str] | None = None
    sees_out: set[str] = field(default_factory=set)
    begun: bool = False


class Memory(RuleBasedStateMachine):
    """Between any two steps of a load or an unload anything may happen to all the others."""

    @initialize(places=st.integers(1, 3), known=st.booleans())
    def begin(self, places: int, known: bool) -> None:
        specs = [spec(model, max_concurrent=2) for model in MODELS]
        self.limits = Limits(places, 1.0, models={each.tag: each for each in specs})
        self.state = State(places)
        self.memory = {f"{model}:latest": LOADED for model in MODELS[:places]}
        for model in self.memory if known else ():
            self.state.adopt(model, 0.0)
        self.reconciler: dict[str, Errand] = {}
        self.keepers_look: tuple[int, set[str]] | None = None
        self.count = 0

    def settle(self) -> None:
        self.count += 1
        policy.settle(self.state, float(self.count), self.limits)

    def listed(self) -> set[str]:
        """The runtime lists no model that is loading."""
        return {model for model, phase in self.memory.items() if phase != LOADING}

    def unload_and_wait(self, models: set[str]) -> None:
        self.memory.update(dict.fromkeys(models & self.listed(), LEAVING))

    # What clients, workers and the runtime do

    @rule(model=st.sampled_from(MODELS), worker=st.sampled_from(WORKERS))
    def arrive(self, model: str, worker: str) -> None:
        self.settle()
        name = f"{worker}/{self.count}"
        self.state.join(name, worker, f"{model}:latest", PERMIT, float(self.count))
        self.settle()

    @precondition(lambda self: self.state.permits)
    @rule(data=st.data())
    def finish_a_generation(self, data: st.DataObject) -> None:
        permit = self.state.permits[data.draw(st.sampled_from(sorted(self.state.permits)))]
        self.memory.setdefault(permit.model, LOADED)  # the runtime loads what it is asked for
        self.state.leave(permit.id, float(self.count))
        self.settle()

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        for ticket in self.with_a_duty(worker):
            if ticket.task == LOAD and self.memory.get(ticket.model) == LOADING:
                del self.memory[ticket.model]  # a load ends with its connection
            self.reconciler.pop(ticket.id, None)
        self.state.release_dead_worker(worker, float(self.count))
        self.settle()

    @rule(phase=st.sampled_from([LOADED, LEAVING]), model=st.sampled_from(MODELS))
    def leave_memory(self, phase: str, model: str) -> None:
        if self.memory.get(f"{model}:latest") == phase:
            del self.memory[f"{model}:latest"]

    # What the keeper does

    @rule()
    def the_keeper_looks(self) -> None:
        self.keepers_look = (self.state.residency, self.listed())

    @precondition(lambda self: self.keepers_look is not None)
    @rule(worker=st.sampled_from(WORKERS))
    def the_keeper_puts_right(self, worker: str) -> None:
        (residency, listed), self.keepers_look = self.keepers_look, None
        if residency != self.state.residency:
            return
        for model in list(self.state.registry):
            if self.state.ready(model) or self.state.missing(model):
                self.state.look_for(model, listed=model in listed, now=float(self.count))
        for model in sorted(listed):
            if not self.state.in_memory(model) and self.state.places_free > 0:
                self.state.adopt(model, float(self.count))
        self.settle()
        name = f"{worker}/{self.count}"
        if claimed := claim_untracked(self.state, listed, name):
            self.state.join(name, worker, min(claimed), UNLOAD, float(self.count)).task = UNLOAD
            self.reconciler[name] = Errand(sees_out=claimed)
            self.unload_and_wait(claimed)
        self.settle()

    # What tickets with a duty do, step by step

    def with_a_duty(self, worker: str = "") -> list[Ticket]:
        tickets = self.state.tickets.values()
        return [t for t in tickets if t.task and t.worker.startswith(worker)]

    @precondition(lambda self: self.with_a_duty())
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def go_on(self, data: st.DataObject, fails: bool) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.with_a_duty(), key=lambda t: t.id)))
        operation = self.reconciler.setdefault(ticket.id, Errand())
        if ticket.task == UNLOAD and ticket.victim is not None and not operation.begun:
            operation.begun, operation.sees_out = True, {ticket.victim}
            self.unload_and_wait(operation.sees_out)
        elif operation.sees_out:
            self.go_on_seeing_out(ticket, operation, fails)
        elif operation.begun:
            self.end_load(ticket, fails)
        elif operation.seen is None:
            operation.seen = self.listed()
        else:
            self.begin_load(ticket, operation)

    def go_on_seeing_out(self, ticket: Ticket, operation: Errand, fails: bool) -> None:
        if operation.sees_out & self.listed() and not fails:
            return
        if fails:
            self.memory.update(dict.fromkeys(operation.sees_out & self.listed(), LOADED))
        self.state.release(operation.sees_out, float(self.count))
        operation.sees_out = set()
        if ticket.task == UNLOAD:
            self.end(ticket, given_up=fails or ticket.wants == UNLOAD)
        elif fails:
            self.give_up_load(ticket)

    def begin_load(self, ticket: Ticket, operation: Errand) -> None:
        seen, operation.seen = operation.seen or set(), None
        full = overfull(self.state, seen)
        operation.sees_out = claim_untracked(self.state, seen, ticket.id)
        self.unload_and_wait(operation.sees_out)
        if not full and self.memory.get(ticket.model) != LEAVING:
            operation.begun = True
            self.memory.setdefault(ticket.model, LOADING)

    def end_load(self, ticket: Ticket, fails: bool) -> None:
        if fails:
            self.memory.pop(ticket.model, None)
            self.give_up_load(ticket)
        elif self.memory.get(ticket.model) == LOADING:
            self.memory[ticket.model] = LOADED
        else:
            self.state.finish_load(ticket.model, float(self.count))
            self.end(ticket, given_up=False)

    def give_up_load(self, ticket: Ticket) -> None:
        self.state.drop(ticket.model, float(self.count))
        self.end(ticket, given_up=True)

    def end(self, ticket: Ticket, *, given_up: bool) -> None:
        del self.reconciler[ticket.id]
        self.state.finish_task(ticket.id)
        if given_up:
            self.state.refuse(ticket, Refusal(ticket.worker, "runtime_unavailable", "no"))
            self.state.leave(ticket.id, float(self.count))
        self.settle()

    @invariant()
    def never_more_than_may_be(self) -> None:
        assert len(self.memory) <= self.limits.max_loaded, self.memory


Memory.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMemory = Memory.TestCase
