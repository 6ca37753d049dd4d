"""Retrying: whether a model is asked again, and how. No I/O, no clock of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mes.domain import Attempt
from mes.structured.grammar import GRAMMAR

# An attempt is begun only where there is time for one like the last.
_MARGIN = 1.2
_LEAST_SECONDS = 1.0
# At 0 a small model says the same again, whatever it is told.
_LEAST_TEMPERATURE = 0.3

_INDEX = re.compile(r"/\d+(?=/|$)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What asking may take: the modes, strictest first, and how many attempts."""

    modes: tuple[str, ...]
    most_attempts: int
    may_grow: bool
    """whether the answer may be given more tokens: the caller has not said how many"""


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt to make: in which mode, with which options, with feedback or without."""

    mode: str
    options: dict[str, Any]
    feedback_on: Attempt | None = None
    number: int = 1


def next_step(attempts: Sequence[Attempt], plan: Plan, *, seconds_left: float) -> Step | None:
    """What to ask next; None where the answer is valid or asking again has no point."""
    last, number = attempts[-1], len(attempts) + 1
    if last.verdict in ("valid", "aborted") or len(attempts) >= plan.most_attempts:
        return None
    if seconds_left < max(_LEAST_SECONDS, _MARGIN * last.seconds):
        return None
    if last.verdict == "truncated":
        return Step(last.mode, _longer(last.options), number=number) if plan.may_grow else None
    mode = _mode_after(attempts, plan)
    return Step(mode, _varied(last.options), feedback_on=last, number=number)


def _longer(options: Mapping[str, Any]) -> dict[str, Any]:
    # Varied, because a small model that goes in circles would go on in them.
    return {**_varied(options), "num_predict": 2 * options["num_predict"]}


def _varied(options: Mapping[str, Any]) -> dict[str, Any]:
    """The next seed, and a temperature at which it counts."""
    warmer = max(options["temperature"], _LEAST_TEMPERATURE)
    return {**options, "seed": (options["seed"] + 1) % 2**31, "temperature": warmer}


def _mode_after(attempts: Sequence[Attempt], plan: Plan) -> str:
    """The next mode where the grammar has led to the same violation twice.

    It may forbid every valid answer; then no answer under it can be right.
    """
    last, before = attempts[-1], attempts[-2:-1]
    repeats = any(each.mode == last.mode and _signature(each) & _signature(last) for each in before)
    if last.mode != GRAMMAR or not repeats:
        return last.mode
    return plan.modes[min(plan.modes.index(GRAMMAR) + 1, len(plan.modes) - 1)]


def _signature(attempt: Attempt) -> set[tuple[str, str, str]]:
    """What was wrong, wherever in a list it was."""
    validation = attempt.validation
    assert validation is not None
    return {
        (validation.verdict, _INDEX.sub("/*", each.pointer), each.keyword)
        for each in validation.errors
    }
