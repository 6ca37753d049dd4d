"""Asking: one question put to a model until its answer fits the schema, or there is no point."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cachetools import TTLCache

from mes.domain import Attempt, Prompt, Reply, ValidationResult, Violation
from mes.errors import ClientDisconnected, MesError, SchemaRefused
from mes.structured.grammar import GRAMMAR, JSON
from mes.structured.prompts import with_feedback, with_schema
from mes.structured.retrying import Plan, Step, next_step
from mes.structured.schemas import Schema

Generate = Callable[[Prompt, int], Reply]
"""Ask the model; the number is that of the attempt."""

_REMEMBERED_SECONDS = 600


class Refusals:
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


_refusals = Refusals()


def ask(
    prompt: Prompt, schema: Schema, plan: Plan, *, generate: Generate, deadline: float
) -> tuple[Attempt, ...]:
    """All attempts, the last one valid or without a successor. At least one has a reply.

    Raises what `generate` raises for the first attempt; what befalls a later one is noted in it.
    `deadline` is a time of `time.monotonic()`.
    """
    plan = _without_refused(plan, prompt, schema)
    attempts = [_attempt(Step(plan.modes[0], dict(prompt.options)), prompt, schema, plan, generate)]
    while step := next_step(attempts, plan, seconds_left=deadline - time.monotonic()):
        try:
            attempts.append(_attempt(step, prompt, schema, plan, generate))
        except ClientDisconnected:
            raise
        except MesError as exc:
            # The answer that was judged before is still worth telling.
            attempts.append(_aborted(step, exc))
    return tuple(attempts)


def _attempt(step: Step, prompt: Prompt, schema: Schema, plan: Plan, generate: Generate) -> Attempt:
    began = time.monotonic()
    try:
        reply = generate(_worded(prompt, schema, step), step.number)
    except SchemaRefused:
        # No token was spent: the runtime cannot make a grammar of it, so the next mode is tried.
        _refusals.add(prompt, schema)
        weaker = dataclasses.replace(plan, modes=plan.modes[plan.modes.index(step.mode) + 1 :])
        if not weaker.modes:
            raise
        step = dataclasses.replace(step, mode=weaker.modes[0])
        return _attempt(step, prompt, schema, weaker, generate)
    return Attempt(
        mode=step.mode,
        options=step.options,
        reply=reply,
        validation=schema.judge(reply.text, reply.finish_reason),
        seconds=time.monotonic() - began,
    )


def _aborted(step: Step, error: MesError) -> Attempt:
    validation = ValidationResult("aborted", errors=(Violation("", "", error.detail),))
    return Attempt(step.mode, step.options, None, validation, 0.0)


def _worded(prompt: Prompt, schema: Schema, step: Step) -> Prompt:
    """The question as it is put in this step."""
    asked = prompt.question
    if step.mode != GRAMMAR:
        asked = with_schema(asked, schema.text)
    last = step.feedback_on
    if last is not None and last.reply is not None and last.validation is not None:
        asked = with_feedback(asked, last.reply.text, last.validation)
    return dataclasses.replace(
        prompt.rephrased(asked), options=step.options, format=_format(step.mode, schema)
    )


def _format(mode: str, schema: Schema) -> Mapping[str, Any] | str | None:
    formats: dict[str, Mapping[str, Any] | str] = {GRAMMAR: schema.document, JSON: "json"}
    return formats.get(mode)


def _without_refused(plan: Plan, prompt: Prompt, schema: Schema) -> Plan:
    if plan.modes[0] != GRAMMAR or len(plan.modes) == 1 or not _refusals.has(prompt, schema):
        return plan
    return dataclasses.replace(plan, modes=plan.modes[1:])
