"""The tasks of tickets: loads and unloads that the policy has decided, and their outcome."""

from __future__ import annotations

import logging

from mes.domain import LoadedModel, ModelSpec
from mes.errors import (
    MesError,
    ModelUnavailable,
    RuntimeUnavailable,
    ShuttingDown,
    StateUnavailable,
)
from mes.scheduling import runtime_places
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.model_loader import ModelLoader, PlaceLost, resident_fields
from mes.scheduling.registry import LOAD, UNLOAD, Refusal, Ticket

log = logging.getLogger(__name__)


class LoadTasks:
    """Carries out the tasks of waiting tickets, outside the lock, and records the outcome.

    A model that cannot be loaded cools down. A model that cannot be unloaded gets its place back
    and is no victim any more, so that the policy chooses another one.
    """

    def __init__(self, coordinator: Coordinator, model_loader: ModelLoader) -> None:
        self._coordinator = coordinator
        self._model_loader = model_loader

    def run(self, ticket: Ticket, spec: ModelSpec) -> None:
        """Carry out the task of the ticket. If it fails, all tickets for its model are refused.

        Raises:
            ShuttingDown: the service stops; the task is undone when the ticket leaves.
            StateUnavailable: the outcome cannot be recorded; the task is undone likewise.
        """
        if ticket.task == LOAD:
            self._load(ticket, spec)
        else:
            self._unload(ticket, spec)

    def _load(self, ticket: Ticket, spec: ModelSpec) -> None:
        try:
            listed = self._model_loader.load(spec, ticket.id)
        except (ShuttingDown, StateUnavailable):
            raise  # the next ticket that waits for the model, maybe in another worker, loads it
        except PlaceLost:
            with self._coordinator.transaction() as transaction:
                _drop_load(transaction, ticket)
                transaction.state.finish_task(ticket.id)  # it waits for a place again
            return
        except MesError as exc:
            with self._coordinator.transaction() as transaction:
                _drop_load(transaction, ticket)
                transaction.state.finish_task(ticket.id)
                self._refuse_all(transaction, spec, exc)
            return
        with self._coordinator.transaction() as transaction:
            # Absent if a reload has lowered MAX_LOADED_MODELS meanwhile.
            if (resident := transaction.state.loading_by(ticket.id)) is not None:
                _finish_load(transaction, resident.model, listed)
            transaction.state.finish_task(ticket.id)

    def _unload(self, ticket: Ticket, spec: ModelSpec) -> None:
        assert ticket.victim is not None
        error, loaded = self._try_unload(ticket.victim)
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            if error is not None and loaded is not None:
                self._keep_victim(transaction, ticket.victim, loaded, error)
            else:
                state.release({ticket.victim}, transaction.now)
            state.finish_task(ticket.id)
            if error is not None and ticket.wants == UNLOAD:
                self._refuse_unloads(transaction, ticket.victim or "", error)
            elif error is not None and loaded is None:
                self._refuse_all(transaction, spec, error)

    def _try_unload(self, place: str) -> tuple[MesError | None, LoadedModel | None]:
        """Unload the model. Return the error, and the model if the runtime still lists it."""
        try:
            self._model_loader.unload_and_wait(place)
        except ShuttingDown:
            raise
        except MesError as exc:
            try:
                loaded = self._model_loader.find(place)
            except RuntimeUnavailable:
                return exc, None
            return (exc, loaded) if loaded is not None else (None, None)
        return None, None

    def _keep_victim(
        self, transaction: Transaction, place: str, loaded: LoadedModel, error: MesError
    ) -> None:
        log.warning("unload_failed", extra={"model": place, "reason": error.detail})
        state, cooldown = transaction.state, self._model_loader.cooldown
        failure = cooldown.after(state.unload_failures.get(place), error.detail, transaction.now)
        fields = resident_fields(loaded)
        state.keep_after_failed_unload(place, failure, transaction.now, **fields)

    def _refuse_unloads(self, transaction: Transaction, place: str, error: MesError) -> None:
        """Refuse all requests to unload the model: each of them would wait as long."""
        state = transaction.state
        for ticket in list(state.tickets.values()):
            if ticket.wants == UNLOAD and state.place_of(ticket.model) == place:
                refuse(transaction, ticket, error)

    def _refuse_all(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> None:
        """Refuse all tickets that wait for the model, with this error."""
        log.error("load_abandoned", extra={"model": spec.id, "code": error.code})
        state, retry_after = transaction.state, error.retry_after
        if isinstance(error, ModelUnavailable):
            retry_after = self._cool_down(transaction, spec, error)
        for ticket in [t for t in state.tickets.values() if t.model == spec.tag and not t.task]:
            refuse(transaction, ticket, error, retry_after)

    def _cool_down(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> float:
        """Begin the cooldown of the model, and return its length in seconds."""
        failures, now = transaction.state.load_failures, transaction.now
        failures[spec.tag] = self._model_loader.cooldown.after(
            failures.get(spec.tag), error.detail, now
        )
        return failures[spec.tag].until - now


def refuse(
    transaction: Transaction, ticket: Ticket, error: MesError, retry_after: float | None = None
) -> None:
    """Turn a ticket into a refusal, and wake its request."""
    retry_after = error.retry_after if retry_after is None else retry_after
    refusal = Refusal(ticket.worker, error.code, error.detail, retry_after)
    transaction.state.refuse(ticket, refusal)
    transaction.to_wake.append(ticket)


def _finish_load(transaction: Transaction, place: str, listed: list[LoadedModel]) -> None:
    state, now = transaction.state, transaction.now
    loaded = state.runner_at(place, listed)
    runtime_places.note_load(state, place, listed, now)
    state.finish_load(place, now, **({} if loaded is None else resident_fields(loaded)))


def _drop_load(transaction: Transaction, ticket: Ticket) -> None:
    if (resident := transaction.state.loading_by(ticket.id)) is not None:
        transaction.state.drop(resident.model, transaction.now)
