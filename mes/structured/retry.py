"""Asking: one question put to a model until its answer fits the schema, or there is no point."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

from mes.domain import Attempt, Prompt, Reply, ValidationResult, Violation
from mes.errors import ClientDisconnected, MesError, SchemaRefused
from mes.structured.decoding_modes import GRAMMAR, JSON
from mes.structured.messages import with_feedback, with_schema
from mes.structured.schema import Schema

Generate = Callable[[Prompt, int], Reply]
"""Ask the model; the number is that of the attempt."""

_REMEMBERED_SECONDS = 600


class RefusedSchemas:
    """Which schemas the runtime has lately refused for which model, so as not to try again."""

    def __init__(self) -> None:
        self._known: TTLCache[tuple[str, str], None] = TTLCache(1024, _REMEMBERED_SECONDS)
        self._lock = threading.Lock()

    def add(self, prompt: Prompt, schema: Schema) -> None:
        with self._lock:
            self._known[prompt.spec.tag, schema.sha256] = None

    def has(self, prompt: Prompt, schema: Schema) -> bool:
        with self._lock:
            return (prompt.spec.tag, schema.sha256) in self._known


_refused_schemas = RefusedSchemas()


def generate_with_retries(
    prompt: Prompt, schema: Schema, plan: RetryPlan, *, generate: Generate, deadline: float
) -> tuple[Attempt, ...]:
    """All attempts, the last one valid or without a successor. At least one has a reply.

    Raises what `generate` raises for the first attempt; what befalls a later one is noted in it.
    `deadline` is a time of `time.monotonic()`.
    """
    plan = _without_refused(plan, prompt, schema)
    attempts = [
        _attempt(RetryStep(plan.modes[0], dict(prompt.options)), prompt, schema, plan, generate)
    ]
    while step := next_step(attempts, plan, seconds_left=deadline - time.monotonic()):
        try:
            attempts.append(_attempt(step, prompt, schema, plan, generate))
        except ClientDisconnected:
            raise
        except MesError as exc:
            # The answer that was judged before is still worth telling.
            attempts.append(_aborted(step, exc))
    return tuple(attempts)


def _attempt(
    step: RetryStep, prompt: Prompt, schema: Schema, plan: RetryPlan, generate: Generate
) -> Attempt:
    began = time.monotonic()
    try:
        reply = generate(_worded(prompt, schema, step), step.number)
    except SchemaRefused:
        # No token was spent: the runtime cannot make a grammar of it, so the next mode is tried.
        _refused_schemas.add(prompt, schema)
        weaker = dataclasses.replace(plan, modes=plan.modes[plan.modes.index(step.mode) + 1 :])
        if not weaker.modes:
            raise
        step = dataclasses.replace(step, mode=weaker.modes[0])
        return _attempt(step, prompt, schema, weaker, generate)
    return Attempt(
        mode=step.mode,
        options=step.options,
        reply=reply,
        validation=schema.validate_answer(reply.text, reply.finish_reason),
        seconds=time.monotonic() - began,
    )


def _aborted(step: RetryStep, error: MesError) -> Attempt:
    validation = ValidationResult("aborted", errors=(Violation("", "", error.detail),))
    return Attempt(step.mode, step.options, None, validation, 0.0)


def _worded(prompt: Prompt, schema: Schema, step: RetryStep) -> Prompt:
    """The question as it is put in this step."""
    asked = prompt.question
    if step.mode != GRAMMAR:
        asked = with_schema(asked, schema.text)
    last = step.feedback_on
    if last is not None and last.reply is not None and last.validation is not None:
        asked = with_feedback(asked, last.reply.text, last.validation)
    return dataclasses.replace(
        prompt.with_question(asked), options=step.options, format=_format(step.mode, schema)
    )


def _format(mode: str, schema: Schema) -> Mapping[str, Any] | str | None:
    formats: dict[str, Mapping[str, Any] | str] = {GRAMMAR: schema.document, JSON: "json"}
    return formats.get(mode)


def _without_refused(plan: RetryPlan, prompt: Prompt, schema: Schema) -> RetryPlan:
    if plan.modes[0] != GRAMMAR or len(plan.modes) == 1 or not _refused_schemas.has(prompt, schema):
        return plan
    return dataclasses.replace(plan, modes=plan.modes[1:])


# Retrying: whether a model is asked again, and how. No I/O, no clock of its own.

# An attempt is begun only where there is time for one like the last.
_MARGIN = 1.2
_LEAST_SECONDS = 1.0
# At 0 a small model says the same again, whatever it is told.
_LEAST_TEMPERATURE = 0.3

_INDEX = re.compile(r"/\d+(?=/|$)")


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What asking may take: the modes, strictest first, and how many attempts."""

    modes: tuple[str, ...]
    max_attempts: int
    may_grow: bool
    """whether the answer may be given more tokens: the caller has not said how many"""


@dataclass(frozen=True, slots=True)
class RetryStep:
    """One attempt to make: in which mode, with which options, with feedback or without."""

    mode: str
    options: dict[str, Any]
    feedback_on: Attempt | None = None
    number: int = 1


def next_step(
    attempts: Sequence[Attempt], plan: RetryPlan, *, seconds_left: float
) -> RetryStep | None:
    """What to ask next; None where the answer is valid or asking again has no point."""
    last, number = attempts[-1], len(attempts) + 1
    if last.verdict in ("valid", "aborted") or len(attempts) >= plan.max_attempts:
        return None
    if seconds_left < max(_LEAST_SECONDS, _MARGIN * last.seconds):
        return None
    if last.verdict == "truncated":
        return RetryStep(last.mode, _longer(last.options), number=number) if plan.may_grow else None
    mode = _mode_after(attempts, plan)
    return RetryStep(mode, _varied(last.options), feedback_on=last, number=number)


def _longer(options: Mapping[str, Any]) -> dict[str, Any]:
    # Varied, because a small model that goes in circles would go on in them.
    return {**_varied(options), "num_predict": 2 * options["num_predict"]}


def _varied(options: Mapping[str, Any]) -> dict[str, Any]:
    """The next seed, and a temperature at which it counts."""
    warmer = max(options["temperature"], _LEAST_TEMPERATURE)
    return {**options, "seed": (options["seed"] + 1) % 2**31, "temperature": warmer}


def _mode_after(attempts: Sequence[Attempt], plan: RetryPlan) -> str:
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
