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
from mes.scheduling.board import Board, Change
from mes.scheduling.duties import Duties
from mes.scheduling.records import LOAD, PERMIT, UNLOAD, Refusal, Ticket
from mes.scheduling.registry import LOADING
from mes.scheduling.state import State
from mes.scheduling.worker import Worker


@dataclass(frozen=True, slots=True)
class Turn:
    """A permit as its holder sees it: what it took to get it, and what it is for."""

    queue_seconds: float
    load_seconds: float
    digest: str | None
    quantization: str | None


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one request waits for, and who hears of it."""

    ticket: str
    spec: ModelSpec
    wants: str
    client: Client
    rung: threading.Event
    request_id: str
    emit: Emit


class Scheduler:
    """Hands out permits; loads and unloads models as that takes."""

    def __init__(
        self,
        *,
        board: Board,
        worker: Worker,
        duties: Duties,
        queue_timeout_seconds: float,
        drain_timeout_seconds: float,
    ) -> None:
        self._board = board
        self._worker = worker
        self._duties = duties
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
    ) -> Iterator[Turn]:
        """The right to use the model inside the block; it is in memory by then.

        Where that takes a wait, tells of the place in the queue and of the load, once each.

        Raises QueueFull at once, QueueTimeout, CallerGone; ModelUnavailable while the model cools
        down; what kept it from being loaded: LoadTimeout, ModelNotPulled, RuntimeUnavailable; and
        ShuttingDown.
        """
        with self._turn(spec, PERMIT, client, request_id, _news(emit)) as turn:
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
    ) -> Iterator[Turn | None]:
        ticket = self._worker.new_ticket()
        with self._worker.expecting(ticket) as rung, client.on_disconnect(rung.set):
            wish = _Wish(ticket, spec, wants, client, rung, request_id, emit)
            self._refuse_if_shut()
            try:
                yield self._join(wish) or self._wait(wish)
            finally:
                self._leave(ticket)

    def _join(self, wish: _Wish) -> Turn | None:
        """Take a place in the queue. The turn itself, where it can be had at once."""
        with self._board.change() as change:
            state, spec = change.state, wish.spec
            if wish.wants != UNLOAD:
                _refuse_what_cannot_be_loaded(change, spec)
            mine = (wish.ticket, self._worker.id, spec.tag, wish.wants)
            state.join(*mine, change.now, wish.request_id)
            change.settle()
            # Those who will run at once when the model is loaded are not the queue's length.
            full = wish.wants == PERMIT and state.requests(spec.tag) > spec.capacity
            if full:
                state.leave(wish.ticket, change.now)
            turn = _turn_of(state, wish.ticket)
        if full:
            raise _queue_full(spec)
        return turn

    def _wait(self, wish: _Wish) -> Turn | None:
        """Wait for the turn, doing the ticket's duties meanwhile. None: it came true by itself."""
        while True:
            state = self._board.read()
            if wish.ticket in state.permits:
                return _turn_of(state, wish.ticket)
            if wish.ticket in state.refusals:
                raise _as_error(state.refusals[wish.ticket])
            if wish.ticket not in state.tickets:
                return None
            self._refuse_if_shut()
            self._make_use_of_the_wait(wish, state)

    def _make_use_of_the_wait(self, wish: _Wish, state: State) -> None:
        ticket = state.tickets[wish.ticket]
        wish.emit(_standing(state, ticket))
        if ticket.duty is not None:
            self._duties.do(ticket, wish.spec)
            return
        if wish.client.disconnected:
            raise ClientDisconnected("the caller hung up while it waited in the queue")
        waited = policy.queue_seconds(state, ticket, time.monotonic())
        left = self._seconds_left(wish, waited)
        wish.rung.wait(min(left, self._worker.looks_every_seconds))
        wish.rung.clear()

    def _seconds_left(self, wish: _Wish, waited: float) -> float:
        limit = self._drain_timeout if wish.wants == UNLOAD else self._queue_timeout
        if waited < limit:
            return limit - waited
        if wish.wants == UNLOAD:
            raise ModelBusy(f"{wish.spec.id} is still in use after {limit:g} s; try again later")
        raise QueueTimeout(f"no permit for {wish.spec.id} within {limit:g} s; try again later")

    def _refuse_if_shut(self) -> None:
        if self._shut:
            raise ShuttingDown("the service is shutting down; try again once it is back")

    def _leave(self, ticket: str) -> None:
        """Give back the permit, or the place in the queue."""
        with self._board.change() as change:
            change.state.leave(ticket, change.now)


def _standing(state: State, ticket: Ticket) -> Event:
    resident = state.registry.get(ticket.model)
    if ticket.duty == LOAD or (resident is not None and resident.phase == LOADING):
        return Loading()
    rivals = (t for t in state.tickets.values() if (t.model, t.wants) == (ticket.model, PERMIT))
    return Queued(sum(rival.number <= ticket.number for rival in rivals))


def _news(emit: Emit) -> Emit:
    """Tells nothing twice in a row."""
    last: tuple[Event, ...] = ()

    def tell_news(*events: Event) -> bool:
        nonlocal last
        is_news, last = events != last, events
        return is_news and emit(*events)

    return tell_news


def _refuse_what_cannot_be_loaded(change: Change, spec: ModelSpec) -> None:
    state = change.state
    if spec.tag in state.registry:
        return
    trouble = state.troubles.get(spec.tag)
    if trouble is not None and trouble.until > change.now:
        raise ModelUnavailable(trouble.detail, retry_after=trouble.until - change.now)
    reason = change.limits.why_never(state, spec.tag)
    if reason is not None:
        raise ModelUnavailable(f"{spec.id} cannot be loaded: {reason}")


def _queue_full(spec: ModelSpec) -> QueueFull:
    return QueueFull(
        f"{spec.max_queue} requests wait for {spec.id} already; try again later",
        # One round of the queue at a second each: a guess, but it grows with the queue.
        retry_after=min(60.0, max(1.0, spec.max_queue / spec.max_concurrent)),
    )


def _turn_of(state: State, ticket: str) -> Turn | None:
    permit = state.permits.get(ticket)
    if permit is None:
        return None
    resident = state.registry.get(permit.model)
    waited = permit.granted_at - permit.arrived_at
    return Turn(
        queue_seconds=waited - permit.load_seconds,
        load_seconds=permit.load_seconds,
        digest=resident.digest if resident else None,
        quantization=resident.quantization if resident else None,
    )


def _as_error(refusal: Refusal) -> MesError:
    return error_for_code(refusal.code)(refusal.detail, retry_after=refusal.retry_after)
