"""Duties: what a ticket does for everybody while it waits, namely load and unload models."""

from __future__ import annotations

import logging

from mes.domain import ModelSpec
from mes.errors import MesError, ModelUnavailable, ShuttingDown
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.loader import Loader
from mes.scheduling.registry import LOAD, LoadFailure, Refusal, Ticket

log = logging.getLogger(__name__)


class Duties:
    """Carries out a ticket's duty outside the lock and notes what came of it.

    A model that could not be loaded cools down: for `cooldown_seconds` after the first failure,
    twice as long after each further one, at most `cooldown_max_seconds`.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        loader: Loader,
        *,
        cooldown_seconds: float,
        cooldown_max_seconds: float,
    ) -> None:
        self._coordinator = coordinator
        self._loader = loader
        self._cooldown_seconds = cooldown_seconds
        self._cooldown_max_seconds = cooldown_max_seconds

    def do(self, ticket: Ticket, spec: ModelSpec) -> None:
        """Do what the ticket has to do; its failures become words to those who wait."""
        if ticket.task == LOAD:
            self._load(ticket, spec)
        else:
            self._unload(ticket, spec)

    def _load(self, ticket: Ticket, spec: ModelSpec) -> None:
        try:
            facts = self._loader.load(spec, ticket.id)
        except ShuttingDown:
            raise  # others may wait for the model in workers that go on: the next of them loads it
        except MesError as exc:
            with self._coordinator.transaction() as transaction:
                transaction.state.drop(spec.tag, transaction.now)
                self._give_up(transaction, spec, exc)
            return
        with self._coordinator.transaction() as transaction:
            # Absent where a reload has lowered MAX_LOADED_MODELS meanwhile.
            if spec.tag in transaction.state.registry:
                transaction.state.finish_load(spec.tag, transaction.now, **facts)
            transaction.state.finish_task(ticket.id)

    def _unload(self, ticket: Ticket, spec: ModelSpec) -> None:
        assert ticket.victim is not None
        trouble = None
        try:
            self._loader.unload_and_wait(ticket.victim)
        except ShuttingDown:
            raise
        except MesError as exc:
            trouble = exc
        with self._coordinator.transaction() as transaction:
            transaction.state.release({ticket.victim}, transaction.now)
            transaction.state.finish_task(ticket.id)
            if trouble is not None:
                self._give_up(transaction, spec, trouble)

    def _give_up(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> None:
        """Tell everybody who waits for the model why it cannot be had."""
        log.error("load_given_up", extra={"model": spec.id, "code": error.code})
        state, retry_after = transaction.state, error.retry_after
        if isinstance(error, ModelUnavailable):
            retry_after = self._cool_down(transaction, spec, error)
        for ticket in [t for t in state.tickets.values() if t.model == spec.tag]:
            state.refuse(ticket, Refusal(ticket.worker, error.code, error.detail, retry_after))
            transaction.to_wake.append(ticket)

    def _cool_down(self, transaction: Transaction, spec: ModelSpec, error: MesError) -> float:
        earlier = transaction.state.load_failures.get(spec.tag)
        failures = 1 if earlier is None else earlier.failures + 1
        growing: float = self._cooldown_seconds * 2 ** (failures - 1)
        seconds = min(growing, self._cooldown_max_seconds)
        transaction.state.load_failures[spec.tag] = LoadFailure(
            failures, transaction.now + seconds, error.detail
        )
        return seconds
