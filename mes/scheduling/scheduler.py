"""The scheduler: permits to use models, agreed with all other workers."""

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
    ModelNotPulled,
    ModelUnavailable,
    QueueFull,
    QueueTimeout,
    ShuttingDown,
    error_for_code,
    format_number,
)
from mes.scheduling import policy, stuck_models
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.load_tasks import LoadTasks
from mes.scheduling.queue_estimates import QueueEstimates
from mes.scheduling.registry import DELETED, LOAD, LOADING, PERMIT, UNLOAD, Refusal, Ticket
from mes.scheduling.state import State
from mes.scheduling.workers import WorkerProcess

_LONGEST_RETRY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class GrantedPermit:
    """A permit that was granted: when, how long that took, and the version of the model.

    `warnings` are the reasons why a part of it is not known.
    """

    queue_seconds: float
    load_seconds: float
    digest: str | None
    quantization: str | None
    granted_at: float = 0.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    """A request of this worker that waits with a ticket.

    `wants` is PERMIT, LOAD or UNLOAD; `wakeup` is set when the ticket or its client changes.
    """

    ticket: str
    spec: ModelSpec
    wants: str
    client: Client
    wakeup: threading.Event
    request_id: str
    is_continued: bool
    emit: Emit


class Scheduler:
    """Grants permits, and has models loaded and unloaded for them.

    Args:
        coordinator: Changes the shared state.
        worker: This worker, in which requests wait.
        load_tasks: Carries out the tasks of tickets.
        queue_timeout_seconds: The longest wait for a permit, without the load of the model.
        drain_timeout_seconds: The longest wait for a model to be idle when it is to be unloaded.
    """

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
        self.estimates = QueueEstimates(coordinator)
        self._is_shut = False

    def shut(self) -> None:
        """Refuse all requests that wait or arrive, with ShuttingDown. Permits stay valid."""
        self._is_shut = True
        self._worker.wake_all()

    @contextmanager
    def permit(
        self,
        spec: ModelSpec,
        client: Client,
        *,
        request_id: str = "",
        is_continued: bool = False,
        emit: Emit = no_op,
    ) -> Iterator[GrantedPermit]:
        """Hold a permit to use the model for the length of the block; the model is in memory.

        While the request waits, its changes of position and the load of its model are emitted.

        Args:
            is_continued: The request has held a permit for another of its generations and joins the
                end of the queue again, also of a full one: its work so far would be lost.

        Raises:
            QueueFull: the model's queue has no place left.
            QueueTimeout: no permit was granted in time.
            ClientDisconnected: the client has closed the connection.
            ModelUnavailable: the model cannot be loaded, or failed to load and cools down.
            LoadTimeout, ModelNotPulled, RuntimeUnavailable: the model could not be loaded.
            ShuttingDown: the service stops.
            StateDirFull: the shared state has no room for the request.
            StateLocked: another process holds the lock on the shared state for too long.
        """
        turn = self._turn(
            spec, PERMIT, client, request_id, is_continued=is_continued, emit=_without_repeats(emit)
        )
        with turn as granted:
            assert granted is not None
            yield granted

    def load(self, spec: ModelSpec, client: Client) -> None:
        """Wait until the model is in memory. Raises the errors of `permit`."""
        with self._turn(spec, LOAD, client):
            pass

    def unload(self, spec: ModelSpec, client: Client) -> None:
        """Wait until the model is idle, and unload it. Raises ModelBusy if it stays in use."""
        with self._turn(spec, UNLOAD, client):
            pass

    @contextmanager
    def _turn(
        self,
        spec: ModelSpec,
        wants: str,
        client: Client,
        request_id: str = "",
        *,
        is_continued: bool = False,
        emit: Emit = no_op,
    ) -> Iterator[GrantedPermit | None]:
        """Wait with a new ticket, and give up the ticket, or its permit, after the block."""
        ticket = self._worker.new_ticket()
        with self._worker.wakeup_event(ticket) as wakeup, client.on_disconnect(wakeup.set):
            pending = _PendingRequest(
                ticket, spec, wants, client, wakeup, request_id, is_continued, emit
            )
            self._refuse_if_shut()
            try:
                yield self._join(pending) or self._wait(pending)
            finally:
                self._coordinator.leave(ticket)

    def _join(self, pending: _PendingRequest) -> GrantedPermit | None:
        """Join the queue. Return the permit if it is granted at once."""
        with self._coordinator.transaction() as transaction:
            state, spec = transaction.state, pending.spec
            if pending.wants != UNLOAD:
                _refuse_if_unavailable(transaction, spec)
            identity = (pending.ticket, self._worker.id, spec.tag, pending.wants)
            state.join(*identity, transaction.now, pending.request_id)
            transaction.settle()
            # The capacity includes the requests that will run at once when the model is loaded.
            may_refuse = pending.wants == PERMIT and not pending.is_continued
            full = may_refuse and state.requests(spec.tag) > transaction.limits.capacity(spec)
            if full:
                state.leave(pending.ticket, transaction.now)
            granted = _granted_permit(state, pending.ticket)
        if full:
            raise self._queue_full(spec)
        return granted

    def _wait(self, pending: _PendingRequest) -> GrantedPermit | None:
        """Wait for the permit and return it; None when a load or an unload has been done."""
        while True:
            state = self._coordinator.read()
            if pending.ticket in state.permits:
                return _granted_permit(state, pending.ticket)
            if pending.ticket in state.refusals:
                raise _refusal_error(state.refusals[pending.ticket])
            if pending.ticket not in state.tickets:
                # Only damage to the registry file can lose a ticket that waits for a permit.
                granted = self._join(pending) if pending.wants == PERMIT else None
                if granted is not None or pending.wants != PERMIT:
                    return granted
                continue
            self._refuse_if_shut()
            self._run_task_or_sleep(pending, state)

    def _run_task_or_sleep(self, pending: _PendingRequest, state: State) -> None:
        ticket = state.tickets[pending.ticket]
        pending.emit(_progress_event(state, ticket))
        if ticket.task is not None:
            self._load_tasks.run(ticket, pending.spec)
            return
        if pending.client.disconnected:
            raise ClientDisconnected("the client disconnected while it waited in the queue")
        waited = policy.queue_seconds(state, ticket, time.monotonic())
        left = self._seconds_left(pending, waited)
        pending.wakeup.wait(min(left, self._worker.check_interval_seconds))
        pending.wakeup.clear()

    def _seconds_left(self, pending: _PendingRequest, waited: float) -> float:
        limit = self._drain_timeout if pending.wants == UNLOAD else self._queue_timeout
        if waited < limit:
            return limit - waited
        if pending.wants == UNLOAD:
            raise ModelBusy(
                f"{pending.spec.id} is still in use after {format_number(limit)} s; try again later"
            )
        raise QueueTimeout(
            f"no permit for {pending.spec.id} within {format_number(limit)} s; try again later"
        )

    def _queue_full(self, spec: ModelSpec) -> QueueFull:
        expected = self.estimates.seconds_to_half(spec.tag)
        if expected is None:
            # No request has ended yet: a second for each is a guess that grows with the queue.
            expected = spec.max_queue / spec.max_concurrent
        return QueueFull(
            f"{spec.max_queue} requests wait for {spec.id} already; try again later",
            retry_after=min(_LONGEST_RETRY_SECONDS, max(1.0, expected)),
        )

    def _refuse_if_shut(self) -> None:
        if self._is_shut:
            raise ShuttingDown("the service is shutting down; try again once it is back")


def _progress_event(state: State, ticket: Ticket) -> Event:
    resident = state.resident(ticket.model)
    if ticket.task == LOAD or (resident is not None and resident.phase == LOADING):
        return Loading()
    queue = (t for t in state.tickets.values() if (t.model, t.wants) == (ticket.model, PERMIT))
    return Queued(sum(other.number <= ticket.number for other in queue))


def _without_repeats(emit: Emit) -> Emit:
    """Return a callback that passes on only events which differ from the previous ones."""
    last: tuple[Event, ...] = ()

    def emit_changes(*events: Event) -> bool:
        nonlocal last
        has_changed, last = events != last, events
        return has_changed and emit(*events)

    return emit_changes


def _refuse_if_unavailable(transaction: Transaction, spec: ModelSpec) -> None:
    """Raise ModelUnavailable if the model cools down, or can never be loaded.

    Raises ModelNotPulled if it was deleted while it was loaded.
    """
    state = transaction.state
    if state.resident(spec.tag) is not None:
        return
    if stuck_models.is_deleted(state, spec.tag):
        raise ModelNotPulled(stuck_models.problem(spec.tag, DELETED))
    failure = state.load_failures.get(spec.tag)
    if failure is not None and failure.until > transaction.now:
        raise ModelUnavailable(failure.detail, retry_after=failure.until - transaction.now)
    reason = transaction.limits.why_never(state, spec.tag)
    if reason is not None:
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {reason}")


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
        granted_at=permit.granted_at,
    )


def _refusal_error(refusal: Refusal) -> MesError:
    return error_for_code(refusal.code)(refusal.detail, retry_after=refusal.retry_after)
