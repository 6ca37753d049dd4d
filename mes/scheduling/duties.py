"""Duties: what a ticket does for everybody while it waits, namely load and unload models."""

from __future__ import annotations

import logging

from mes.domain import ModelSpec
from mes.errors import MesError, ModelUnavailable, ShuttingDown
from mes.scheduling.board import Board, Change
from mes.scheduling.loader import Loader
from mes.scheduling.records import LOAD, Refusal, Ticket, Trouble

log = logging.getLogger(__name__)


class Duties:
    """Carries out a ticket's duty outside the lock and notes what came of it.

    A model that could not be loaded cools down: for `cooldown_seconds` after the first failure,
    twice as long after each further one, at most `cooldown_max_seconds`.
    """

    def __init__(
        self,
        board: Board,
        loader: Loader,
        *,
        cooldown_seconds: float,
        cooldown_max_seconds: float,
    ) -> None:
        self._board = board
        self._loader = loader
        self._cooldown_seconds = cooldown_seconds
        self._cooldown_max_seconds = cooldown_max_seconds

    def do(self, ticket: Ticket, spec: ModelSpec) -> None:
        """Do what the ticket has to do; its failures become words to those who wait."""
        if ticket.duty == LOAD:
            self._load(ticket, spec)
        else:
            self._unload(ticket, spec)

    def _load(self, ticket: Ticket, spec: ModelSpec) -> None:
        try:
            facts = self._loader.bring_in(spec, ticket.id)
        except ShuttingDown:
            raise  # others may wait for the model in workers that go on: the next of them loads it
        except MesError as exc:
            with self._board.change() as change:
                change.state.drop(spec.tag, change.now)
                self._give_up(change, spec, exc)
            return
        with self._board.change() as change:
            # Absent where a reload has lowered MAX_LOADED_MODELS meanwhile.
            if spec.tag in change.state.registry:
                change.state.finish_load(spec.tag, change.now, **facts)
            change.state.free_of_duty(ticket.id)

    def _unload(self, ticket: Ticket, spec: ModelSpec) -> None:
        assert ticket.victim is not None
        trouble = None
        try:
            self._loader.see_out(ticket.victim)
        except ShuttingDown:
            raise
        except MesError as exc:
            trouble = exc
        with self._board.change() as change:
            change.state.release({ticket.victim}, change.now)
            change.state.free_of_duty(ticket.id)
            if trouble is not None:
                self._give_up(change, spec, trouble)

    def _give_up(self, change: Change, spec: ModelSpec, error: MesError) -> None:
        """Tell everybody who waits for the model why it cannot be had."""
        log.error("load_given_up", extra={"model": spec.id, "code": error.code})
        state, retry_after = change.state, error.retry_after
        if isinstance(error, ModelUnavailable):
            retry_after = self._cool_down(change, spec, error)
        for ticket in [t for t in state.tickets.values() if t.model == spec.tag]:
            state.refuse(ticket, Refusal(ticket.worker, error.code, error.detail, retry_after))
            change.to_wake.append(ticket)

    def _cool_down(self, change: Change, spec: ModelSpec, error: MesError) -> float:
        earlier = change.state.troubles.get(spec.tag)
        failures = 1 if earlier is None else earlier.failures + 1
        growing: float = self._cooldown_seconds * 2 ** (failures - 1)
        seconds = min(growing, self._cooldown_max_seconds)
        change.state.troubles[spec.tag] = Trouble(failures, change.now + seconds, error.detail)
        return seconds
