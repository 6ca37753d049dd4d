"""The runtime's memory: never more models than allowed, in any sequence of steps and failures."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mes.scheduling import policy
from mes.scheduling.fairness import Limits
from mes.scheduling.registry import (
    LOAD,
    PERMIT,
    REPLACED,
    UNLOAD,
    Refusal,
    StuckRunner,
    Ticket,
)
from mes.scheduling.state import State
from mes.scheduling.untracked_models import claim_untracked, overfull
from tests.fakes import spec

MODELS = "abcde"
WORKERS = ("w1", "w2", "w3")

LOADING, LOADED, UNLOADING = "loading", "loaded", "unloading"


@dataclass
class Operation:
    """The progress of a task: the models it has listed, those it unloads, whether it has begun."""

    listed: list[tuple[str, str]] | None = None
    unloading: set[str] = field(default_factory=set)
    begun: bool = False


class Memory(RuleBasedStateMachine):
    """Any event may come between two steps of a load or an unload."""

    @initialize(places=st.integers(1, 3), known=st.booleans())
    def begin(self, places: int, known: bool) -> None:
        specs = [spec(model, max_concurrent=2) for model in MODELS]
        self.limits = Limits(places, 1.0, models={each.tag: each for each in specs})
        self.state = State(places)
        self.memory = {f"{model}:latest": LOADED for model in MODELS[:places]}
        for model in self.memory if known else ():
            self.state.adopt(model, 0.0)
        self.versions = dict.fromkeys([f"{model}:latest" for model in MODELS], "0")
        # Models that no name leads to: an earlier version of each is still in memory.
        self.orphans: set[tuple[str, str]] = set()
        # The new versions that the runtime has loaded before the leader knew of the update.
        self.excess = 0
        self.operations: dict[str, Operation] = {}
        self.leaders_list: tuple[int, list[tuple[str, str]]] | None = None
        self.count = 0

    def settle(self) -> None:
        self.count += 1
        policy.settle(self.state, float(self.count), self.limits)

    def listed(self) -> set[str]:
        """Return the models that the runtime lists, which are not those that it is loading."""
        return {model for model, phase in self.memory.items() if phase != LOADING}

    def runners(self) -> list[tuple[str, str]]:
        """Return the models that the runtime lists, with their versions."""
        return [*((model, self.versions[model]) for model in self.listed()), *self.orphans]

    def places_of(self, runners: list[tuple[str, str]]) -> list[str]:
        """Return the places of listed models, without those that are known as stuck."""
        return [model for model, version in runners if f"{model}@{version}" not in self.state.stuck]

    def unload_and_wait(self, models: set[str]) -> None:
        self.memory.update(dict.fromkeys(models & self.listed(), UNLOADING))

    # Clients, workers and the runtime

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
        if permit.model not in self.memory:  # the runtime loads the model of each request
            self.memory[permit.model] = LOADED
            self.excess += any(model == permit.model for model, _ in self.orphans)
        self.state.leave(permit.id, float(self.count))
        self.settle()

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        for ticket in self.with_a_task(worker):
            if ticket.task == LOAD and self.memory.get(ticket.model) == LOADING:
                del self.memory[ticket.model]  # a load ends with its connection
            self.operations.pop(ticket.id, None)
        self.state.release_dead_worker(worker, float(self.count))
        self.settle()

    @rule(phase=st.sampled_from([LOADED, UNLOADING]), model=st.sampled_from(MODELS))
    def leave_memory(self, phase: str, model: str) -> None:
        if self.memory.get(f"{model}:latest") == phase:
            del self.memory[f"{model}:latest"]

    @rule(model=st.sampled_from(MODELS))
    def replace_in_memory(self, model: str) -> None:
        """A model gets a new version while it is loaded, as by a pull; the old one stays."""
        model = f"{model}:latest"
        if self.memory.get(model) == LOADED:
            self.orphans.add((model, self.versions[model]))
            self.versions[model] = str(int(self.versions[model]) + 1)
            del self.memory[model]

    @precondition(lambda self: self.orphans)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        self.orphans.remove(data.draw(st.sampled_from(sorted(self.orphans))))

    # The leader

    @rule()
    def the_leader_lists_models(self) -> None:
        self.leaders_list = (self.state.residency, self.runners())

    @precondition(lambda self: self.leaders_list is not None)
    @rule(worker=st.sampled_from(WORKERS))
    def the_leader_reconciles(self, worker: str) -> None:
        (residency, runners), self.leaders_list = self.leaders_list, None
        if residency != self.state.residency:
            return
        self.note_stuck(runners)
        listed = set(self.places_of(runners))
        for model in list(self.state.registry):
            if self.state.ready(model) or self.state.missing(model):
                self.state.look_for(model, listed=model in listed, now=float(self.count))
        for model in sorted(listed):
            if not self.state.in_memory(model) and self.state.places_free > 0:
                self.state.adopt(model, float(self.count))
        self.settle()
        name = f"{worker}/{self.count}"
        if claimed := claim_untracked(self.state, self.places_of(runners), name):
            self.state.join(name, worker, min(claimed), UNLOAD, float(self.count)).task = UNLOAD
            self.operations[name] = Operation(unloading=claimed)
            self.unload_and_wait(claimed)
        self.settle()

    def note_stuck(self, runners: list[tuple[str, str]]) -> None:
        now = float(self.count)
        keys = {f"{model}@{version}" for model, version in runners}
        self.state.forget_stuck(self.state.stuck.keys() - keys, now)
        for model, version in sorted(runners):
            if version != self.versions[model] and f"{model}@{version}" not in self.state.stuck:
                self.state.add_stuck(StuckRunner(model, version, REPLACED, now), now)
                if self.state.ready(model) and (model, self.versions[model]) not in runners:
                    self.state.drop(model, now)

    # Tickets with a task, step by step

    def with_a_task(self, worker: str = "") -> list[Ticket]:
        tickets = self.state.tickets.values()
        return [t for t in tickets if t.task and t.worker.startswith(worker)]

    @precondition(lambda self: self.with_a_task())
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def continue_task(self, data: st.DataObject, fails: bool) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.with_a_task(), key=lambda t: t.id)))
        operation = self.operations.setdefault(ticket.id, Operation())
        if ticket.task == UNLOAD and ticket.victim is not None and not operation.begun:
            operation.begun, operation.unloading = True, {ticket.victim}
            self.unload_and_wait(operation.unloading)
        elif operation.unloading:
            self.continue_unload(ticket, operation, fails)
        elif operation.begun:
            self.end_load(ticket, fails)
        elif operation.listed is None:
            operation.listed = self.runners()
        else:
            self.begin_load(ticket, operation)

    def continue_unload(self, ticket: Ticket, operation: Operation, fails: bool) -> None:
        if operation.unloading & self.listed() and not fails:
            return
        if fails:
            self.memory.update(dict.fromkeys(operation.unloading & self.listed(), LOADED))
        self.state.release(operation.unloading, float(self.count))
        operation.unloading = set()
        if ticket.task == UNLOAD:
            self.end(ticket, refused=fails or ticket.wants == UNLOAD)
        elif fails:
            self.abandon_load(ticket)

    def begin_load(self, ticket: Ticket, operation: Operation) -> None:
        listed, operation.listed = self.places_of(operation.listed or []), None
        if self.state.stuck_in_the_way:
            self.state.drop(ticket.model, float(self.count))
            self.end(ticket, refused=False)
            return
        full = overfull(self.state, listed)
        operation.unloading = claim_untracked(self.state, listed, ticket.id)
        self.unload_and_wait(operation.unloading)
        if not full and self.memory.get(ticket.model) != UNLOADING:
            operation.begun = True
            if ticket.model not in self.memory:
                self.memory[ticket.model] = LOADING
                # It took the earlier version, not yet known as stuck, for the model itself.
                self.excess += ticket.model in listed

    def end_load(self, ticket: Ticket, fails: bool) -> None:
        if fails:
            self.memory.pop(ticket.model, None)
            self.abandon_load(ticket)
        elif self.memory.get(ticket.model) == LOADING:
            self.memory[ticket.model] = LOADED
        else:
            self.state.finish_load(ticket.model, float(self.count))
            self.end(ticket, refused=False)

    def abandon_load(self, ticket: Ticket) -> None:
        self.state.drop(ticket.model, float(self.count))
        self.end(ticket, refused=True)

    def end(self, ticket: Ticket, *, refused: bool) -> None:
        del self.operations[ticket.id]
        self.state.finish_task(ticket.id)
        if refused:
            self.state.refuse(ticket, Refusal(ticket.worker, "runtime_unavailable", "no"))
            self.state.leave(ticket.id, float(self.count))
        self.settle()

    @invariant()
    def never_more_models_than_allowed(self) -> None:
        in_memory = len(self.memory) + len(self.orphans)
        assert in_memory <= self.limits.max_loaded + self.excess, (self.memory, self.orphans)


Memory.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMemory = Memory.TestCase
