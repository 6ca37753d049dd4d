"""The correction of aliases and stuck models, after the models on disk have been listed."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mes.domain import LoadedModel
from mes.errors import ModelNotPulled
from mes.scheduling import stuck_models
from mes.scheduling.coordinator import Transaction
from mes.scheduling.load_tasks import refuse
from mes.scheduling.model_loader import resident_fields
from mes.scheduling.registry import DELETED, LOADING, NOT_UNLOADED, StuckRunner, runner_key
from mes.scheduling.runner_names import RunnerNames
from mes.scheduling.state import State

log = logging.getLogger(__name__)


def stuck_changes(state: State, listed: list[LoadedModel], names: RunnerNames) -> bool:
    """Return whether the aliases, or the stuck models that no name leads to, have changed."""
    unreachable = {each.key: each.cause for each in names.unreachable(listed, 0.0)}
    return state.aliases != names.aliases(listed) or unreachable != _without_name(state)


def correct_names(transaction: Transaction, listed: list[LoadedModel], names: RunnerNames) -> None:
    """Correct the aliases, and note the models that no name leads to any more as stuck."""
    state, now = transaction.state, transaction.now
    state.aliases = names.aliases(listed)
    _move_residents(state, names)
    unreachable = names.unreachable(listed, now)
    known = _without_name(state)
    if reachable_again := known.keys() - {each.key for each in unreachable}:
        state.forget_stuck(reachable_again, now)
    for runner in unreachable:
        if runner.key not in known:
            _add_stuck(transaction, runner, listed)
        elif runner.cause != known[runner.key]:
            state.stuck[runner.key].cause = runner.cause


def forget_gone(state: State, listed: Iterable[LoadedModel], now: float) -> None:
    """Forget the stuck models that have left memory."""
    if gone := gone_keys(state, listed):
        state.forget_stuck(gone, now)


def gone_keys(state: State, listed: Iterable[LoadedModel]) -> set[str]:
    """Return the keys of the stuck models that the runtime does not list."""
    return state.stuck.keys() - {runner_key(each.name, each.digest) for each in listed}


def _without_name(state: State) -> dict[str, str]:
    """Return the causes of the stuck models that no name leads to, by key."""
    return {k: each.cause for k, each in state.stuck.items() if each.cause != NOT_UNLOADED}


def _move_residents(state: State, names: RunnerNames) -> None:
    """Give each resident the place that its names have now."""
    for resident in state.registry.by_last_use():
        place = None
        if resident.digest is not None:
            place = names.place_of(resident.model, resident.digest)
        place = place or state.place_of(resident.model)
        if place != resident.model:
            state.move(resident.model, place)


def _add_stuck(transaction: Transaction, runner: StuckRunner, listed: list[LoadedModel]) -> None:
    state, now = transaction.state, transaction.now
    state.add_stuck(runner, now)
    event = "model_deleted" if runner.cause == DELETED else "model_replaced"
    log.warning(event, extra={"model": runner.model, "digest": runner.digest})
    resident = state.resident(runner.model)
    if resident is not None and resident.phase != LOADING and resident.digest == runner.digest:
        _replace_resident(state, resident.model, listed, now)
    if runner.cause == DELETED:
        _refuse_waiting(transaction, runner.model)


def _replace_resident(state: State, place: str, listed: list[LoadedModel], now: float) -> None:
    """Correct the resident if the runtime has loaded the new version, and drop it if not."""
    newer = state.runner_at(place, listed)
    if newer is None:
        state.drop(place, now)
    else:
        state.correct(place, **resident_fields(newer))


def _refuse_waiting(transaction: Transaction, model: str) -> None:
    error = ModelNotPulled(stuck_models.problem(model, DELETED))
    for ticket in list(transaction.state.tickets.values()):
        if ticket.model == model and ticket.task is None:
            refuse(transaction, ticket, error)
