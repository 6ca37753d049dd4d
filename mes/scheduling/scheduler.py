"""The scheduler: who may use which model when, agreed with all other workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mes.domain import Client, Emit, Event, Loading, ModelSpec, Queued, no_op
from mes.errors import (
    ClientDisconnected,
    MesError,
    ModelBusy,
    ModelUnavailable,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
    error_for_code,
)
from mes.scheduling import policy
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.model_loader import LoadTasks
from mes.scheduling.registry import LOAD, LOADING, PERMIT, UNLOAD, Refusal, Ticket
from mes.scheduling.state import State
from mes.scheduling.workers import WorkerProcess


@dataclass(frozen=True, slots=True)
class GrantedPermit:
    """A permit as its holder sees it: what it took to get it, and what it is for."""

    queue_seconds: float
    load_seconds: float
    digest: str | None
    quantization: str | None


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    """What one request waits for, and who hears of it."""

    ticket: str
    spec: ModelSpec
    wants: str
    client: Client
    wakeup: threading.Event
    request_id: str
    emit: Emit


class Scheduler:
    """Hands out permits; loads and unloads models as that takes."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        worker: WorkerProcess,
        load_tasks: LoadTasks,
        queue_timeout_seconds: float,
        drain_timeout_seconds: float,
    ) -> None:
        self._coordinator = coordinator
        self._worker = worker
        self._load_tasks = load_tasks
        self._queue_timeout = queue_timeout_seconds
        self._drain_timeout = drain_timeout_seconds
        self._shut = False

    def shut(self) -> None:
        """Tell all who wait here, and all who come, that the service ends. Permits stay valid."""
        self._shut = True
        self._worker.wake_all()

    @contextmanager
    def permit(
        self, spec: ModelSpec, client: Client, *, request_id: str = "", emit: Emit = no_op
    ) -> Iterator[GrantedPermit]:
        """The right to use the model inside the block; it is in memory by then.

        Where that takes a wait, tells of the place in the queue and of the load, once each.

        Raises QueueFull at once, QueueTimeout, CallerGone; ModelUnavailable while the model cools
        down; what kept it from being loaded: LoadTimeout, ModelNotPulled, RuntimeUnavailable; and
        ShuttingDown.
        """
        with self._turn(spec, PERMIT, client, request_id, _without_repeats(emit)) as turn:
            assert turn is not None
            yield turn

    def load(self, spec: ModelSpec, client: Client) -> None:
        """Wait until the model is in memory. Raises what `permit` raises."""
        with self._turn(spec, LOAD, client):
            pass

    def unload(self, spec: ModelSpec, client: Client) -> None:
        """Let the model drain and leave memory. Raises ModelBusy where it does not in time."""
        with self._turn(spec, UNLOAD, client):
            pass

    @contextmanager
    def _turn(
        self,
        spec: ModelSpec,
        wants: str,
        client: Client,
        request_id: str = "",
        emit: Emit = no_op,
    ) -> Iterator[GrantedPermit | None]:
        ticket = self._worker.new_ticket()
        with self._worker.wakeup_for(ticket) as wakeup, client.on_disconnect(wakeup.set):
            pending = _PendingRequest(ticket, spec, wants, client, wakeup, request_id, emit)
            self._refuse_if_shut()
            try:
                yield self._join(pending) or self._wait(pending)
            finally:
                self._leave(ticket)

    def _join(self, pending: _PendingRequest) -> GrantedPermit | None:
        """Take a place in the queue. The turn itself, where it can be had at once."""
        with self._coordinator.transaction() as transaction:
            state, spec = transaction.state, pending.spec
            if pending.wants != UNLOAD:
                _refuse_what_cannot_be_loaded(transaction, spec)
            mine = (pending.ticket, self._worker.id, spec.tag, pending.wants)
            state.join(*mine, transaction.now, pending.request_id)
            transaction.settle()
            # Those who will run at once when the model is loaded are not the queue's length.
            full = pending.wants == PERMIT and state.requests(spec.tag) > spec.capacity
            if full:
                state.leave(pending.ticket, transaction.now)
            turn = _granted_permit(state, pending.ticket)
        if full:
            raise _queue_full(spec)
        return turn

    def _wait(self, pending: _PendingRequest) -> GrantedPermit | None:
        """Wait for the turn, doing the ticket's duties meanwhile. None: it came true by itself."""
        while True:
            state = self._coordinator.read()
            if pending.ticket in state.permits:
                return _granted_permit(state, pending.ticket)
            if pending.ticket in state.refusals:
                raise _as_error(state.refusals[pending.ticket])
            if pending.ticket not in state.tickets:
                # Only damage to the registry file can lose a ticket that waits for a permit.
                turn = self._join(pending) if pending.wants == PERMIT else None
                if turn is not None or pending.wants != PERMIT:
                    return turn
                continue
            self._refuse_if_shut()
            self._make_use_of_the_wait(pending, state)

    def _make_use_of_the_wait(self, pending: _PendingRequest, state: State) -> None:
        ticket = state.tickets[pending.ticket]
        pending.emit(_progress_event(state, ticket))
        if ticket.task is not None:
            self._load_tasks.do(ticket, pending.spec)
            return
        if pending.client.disconnected:
            raise ClientDisconnected("the caller hung up while it waited in the queue")
        waited = policy.queue_seconds(state, ticket, time.monotonic())
        left = self._seconds_left(pending, waited)
        pending.wakeup.wait(min(left, self._worker.check_interval_seconds))
        pending.wakeup.clear()

    def _seconds_left(self, pending: _PendingRequest, waited: float) -> float:
        limit = self._drain_timeout if pending.wants == UNLOAD else self._queue_timeout
        if waited < limit:
            return limit - waited
        if pending.wants == UNLOAD:
            raise ModelBusy(f"{pending.spec.id} is still in use after {limit:g} s; try again later")
        raise QueueTimeout(f"no permit for {pending.spec.id} within {limit:g} s; try again later")

    def _refuse_if_shut(self) -> None:
        if self._shut:
            raise ShuttingDown("the service is shutting down; try again once it is back")

    def _leave(self, ticket: str) -> None:
        """Give back the permit, or the place in the queue."""
        with self._coordinator.transaction() as transaction:
            transaction.state.leave(ticket, transaction.now)


def _progress_event(state: State, ticket: Ticket) -> Event:
    resident = state.resident(ticket.model)
    if ticket.task == LOAD or (resident is not None and resident.phase == LOADING):
        return Loading()
    rivals = (t for t in state.tickets.values() if (t.model, t.wants) == (ticket.model, PERMIT))
    return Queued(sum(rival.number <= ticket.number for rival in rivals))


def _without_repeats(emit: Emit) -> Emit:
    """Tells nothing twice in a row."""
    last: tuple[Event, ...] = ()

    def tell_news(*events: Event) -> bool:
        nonlocal last
        is_news, last = events != last, events
        return is_news and emit(*events)

    return tell_news


def _refuse_what_cannot_be_loaded(transaction: Transaction, spec: ModelSpec) -> None:
    state = transaction.state
    if spec.tag in state.registry:
        return
    trouble = state.load_failures.get(spec.tag)
    if trouble is not None and trouble.until > transaction.now:
        raise ModelUnavailable(trouble.detail, retry_after=trouble.until - transaction.now)
    reason = transaction.limits.why_never(state, spec.tag)
    if reason is not None:
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {reason}")


def _queue_full(spec: ModelSpec) -> QueueFull:
    return QueueFull(
        f"{spec.max_queue} requests wait for {spec.id} already; try again later",
        # One round of the queue at a second each: a guess, but it grows with the queue.
        retry_after=min(60.0, max(1.0, spec.max_queue / spec.max_concurrent)),
    )


def _granted_permit(state: State, ticket: str) -> GrantedPermit | None:
    permit = state.permits.get(ticket)
    if permit is None:
        return None
    resident = state.resident(permit.model)
    waited = permit.granted_at - permit.arrived_at
    return GrantedPermit(
        queue_seconds=waited - permit.load_seconds,
        load_seconds=permit.load_seconds,
        digest=resident.digest if resident else None,
        quantization=resident.quantization if resident else None,
    )


def _as_error(refusal: Refusal) -> MesError:
    return error_for_code(refusal.code)(refusal.detail, retry_after=refusal.retry_after)
