"""Retries: ask a model until its answer is valid or another attempt would be useless."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

from mes.domain import (
    SCHEMA_POINTER,
    Attempt,
    Prompt,
    Reply,
    Tool,
    ValidationResult,
    Violation,
)
from mes.errors import ClientDisconnected, MesError, PromptTooLong, SchemaRefused
from mes.structured.answer_forms import AnswerForm, OfferedTools
from mes.structured.decoding_modes import GRAMMAR, JSON, PROMPT, TOOLS
from mes.structured.extraction import is_json
from mes.structured.messages import with_added_part, with_call_feedback, with_feedback
from mes.structured.schema import Schema
from mes.structured.tools import ToolSchemas

Generate = Callable[[Prompt, int], Reply]
"""Send the prompt to the model; the number is that of the attempt, from 1."""

_REFUSAL_SECONDS = 600

# An attempt starts only if there is time for one that takes as long as the last.
_MARGIN = 1.2
_LEAST_SECONDS = 1.0
# At 0 a small model repeats its answer, even with feedback.
_LEAST_TEMPERATURE = 0.3

_FORMATS = {JSON: "json"}

_INDEX = re.compile(r"/\d+(?=/|$)")


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """The decoding modes to use, the strictest first, and the limit of attempts."""

    modes: tuple[str, ...]
    max_attempts: int
    may_raise_max_tokens: bool
    """whether a later attempt may generate more tokens: the client has not set max_tokens"""
    thinks: bool = False
    """whether the model is asked to reason before its answer"""
    schema_pointer: str = SCHEMA_POINTER
    """the JSON pointer to the schema, or to the tools, in the body that the client sent"""


@dataclass(frozen=True, slots=True)
class RetryStep:
    """The next attempt: its mode, options and number, and the attempt to give feedback on."""

    mode: str
    options: dict[str, Any]
    feedback_on: Attempt | None = None
    number: int = 1


class RefusedSchemas:
    """The schemas that a runtime has refused for a model in the last ten minutes.

    MES does not send them again as a grammar.
    """

    def __init__(self) -> None:
        self._refused: TTLCache[tuple[str, str], None] = TTLCache(1024, _REFUSAL_SECONDS)
        self._lock = threading.Lock()

    def add(self, prompt: Prompt, schema: Schema) -> None:
        with self._lock:
            self._refused[prompt.spec.tag, schema.sha256] = None

    def has(self, prompt: Prompt, schema: Schema) -> bool:
        with self._lock:
            return (prompt.spec.tag, schema.sha256) in self._refused


_refused_schemas = RefusedSchemas()


def generate_with_retries(
    prompt: Prompt, form: AnswerForm, plan: RetryPlan, generate: Generate, deadline: float
) -> tuple[Attempt, ...]:
    """Return all attempts, as many as the answer needs to be valid. At least one has a reply.

    An error of a later attempt is recorded in that attempt, whose verdict is `aborted`.

    Args:
        deadline: a time of `time.monotonic()`; no attempt starts that would end after it.

    Raises:
        ClientDisconnected: the client has disconnected.
        MesError: `generate` raised it in the first attempt.
    """
    plan = _without_refused_grammar(plan, prompt, form.schema)
    first = RetryStep(plan.modes[0], dict(prompt.options))
    attempts = [_attempt(first, prompt, form, plan, generate)]
    while step := next_step(attempts, plan, seconds_left=deadline - time.monotonic()):
        try:
            attempts.append(_attempt(step, prompt, form, plan, generate))
        except ClientDisconnected:
            raise
        except MesError as exc:
            # The client still gets the invalid answer of the attempt before.
            attempts.append(_aborted(step, exc))
    return tuple(attempts)


def _attempt(
    step: RetryStep, prompt: Prompt, form: AnswerForm, plan: RetryPlan, generate: Generate
) -> Attempt:
    """Return one attempt, made in the next mode if the runtime refuses the schema."""
    began = time.monotonic()
    asked = _prompt_for(step, prompt, form)
    try:
        reply = generate(asked, step.number)
    except PromptTooLong as exc:
        added = len(form.instruct(prompt.question, step.mode)) - len(prompt.question)
        raise with_added_part(exc, asked, added, at=plan.schema_pointer) from exc
    except SchemaRefused:
        # No token of the answer was generated: the runtime cannot convert the schema into a
        # grammar.
        if step.mode == GRAMMAR and form.schema is not None:
            _refused_schemas.add(prompt, form.schema)
        weaker = dataclasses.replace(plan, modes=plan.modes[plan.modes.index(step.mode) + 1 :])
        if not weaker.modes:
            raise
        step = dataclasses.replace(step, mode=weaker.modes[0])
        return _attempt(step, prompt, form, weaker, generate)
    validation, calls, call_validations = form.judge(_without_cut_reasoning(reply, prompt))
    return Attempt(
        mode=step.mode,
        options=step.options,
        reply=reply,
        validation=validation,
        seconds=time.monotonic() - began,
        tool_calls=calls,
        tool_call_validations=call_validations,
    )


def _without_cut_reasoning(reply: Reply, prompt: Prompt) -> Reply:
    """Return the reply to validate: without a text that may be reasoning.

    A runtime that cannot recognize reasoning leaves it in the text. If it is cut off before its end
    tag, JSON in it is no answer.
    """
    is_cut = reply.finish_reason == "length" and not reply.reasoning
    if not (prompt.think and is_cut) or is_json(reply.text):
        return reply
    return dataclasses.replace(reply, text="")


def _aborted(step: RetryStep, error: MesError) -> Attempt:
    validation = ValidationResult("aborted", errors=(Violation("", "", error.detail),))
    return Attempt(step.mode, step.options, None, validation, 0.0)


def _prompt_for(step: RetryStep, prompt: Prompt, form: AnswerForm) -> Prompt:
    """Return the prompt with the instructions, feedback, options and format of the step."""
    question = form.instruct(prompt.question, step.mode)
    last = step.feedback_on
    if last is not None and last.reply is not None and last.validation is not None:
        add_feedback = with_call_feedback if step.mode == TOOLS else with_feedback
        question = add_feedback(question, _answer_text(last), last.validation)
    if question != prompt.question:
        prompt = prompt.with_question(question)
    return dataclasses.replace(
        prompt,
        options=step.options,
        format=_format(step.mode, form.schema),
        tools=_offered_tools(prompt, form) if step.mode == TOOLS else (),
    )


def _offered_tools(prompt: Prompt, form: AnswerForm) -> tuple[Tool, ...]:
    schemas = form.tools if isinstance(form, OfferedTools) else ToolSchemas.none()
    return tuple(map(schemas.offered, prompt.tools))


def _answer_text(attempt: Attempt) -> str:
    """Return the text of the reply, with the calls that the model made beside it."""
    assert attempt.reply is not None
    calls = (f"{each.name}({each.arguments_text})" for each in attempt.reply.tool_calls)
    return "\n".join(filter(None, (attempt.reply.text, *calls)))


def _format(mode: str, schema: Schema | None) -> Mapping[str, Any] | str | None:
    if mode == GRAMMAR and schema is not None:
        return schema.grammar.document
    return _FORMATS.get(mode)


def _without_refused_grammar(plan: RetryPlan, prompt: Prompt, schema: Schema | None) -> RetryPlan:
    if schema is None or GRAMMAR not in plan.modes or len(plan.modes) == 1:
        return plan
    if not _refused_schemas.has(prompt, schema):
        return plan
    return dataclasses.replace(plan, modes=tuple(mode for mode in plan.modes if mode != GRAMMAR))


def next_step(
    attempts: Sequence[Attempt], plan: RetryPlan, *, seconds_left: float
) -> RetryStep | None:
    """Return the next attempt to make; None if the answer is valid or a retry would be useless.

    The function reads no clock and does no I/O.
    """
    last, number = attempts[-1], len(attempts) + 1
    if last.verdict in (None, "valid", "aborted") or len(attempts) >= plan.max_attempts:
        return None
    if seconds_left < max(_LEAST_SECONDS, _MARGIN * last.seconds):
        return None
    if last.verdict != "truncated":
        mode = _next_mode(attempts, plan)
        return RetryStep(mode, _varied(last.options), feedback_on=last, number=number)
    if plan.may_raise_max_tokens:
        return RetryStep(last.mode, _with_more_tokens(last.options), number=number)
    return None


def _with_more_tokens(options: Mapping[str, Any]) -> dict[str, Any]:
    # With the same seed a small model that repeats itself would continue to do so.
    return {**_varied(options), "num_predict": 2 * options["num_predict"]}


def _varied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the next seed, and a temperature at which the seed has an effect."""
    temperature = max(options["temperature"], _LEAST_TEMPERATURE)
    return {**options, "seed": (options["seed"] + 1) % 2**31, "temperature": temperature}


def _next_mode(attempts: Sequence[Attempt], plan: RetryPlan) -> str:
    """Return the last mode, or a weaker one after the same violation twice under the grammar.

    The grammar may exclude every valid answer; then no answer under it can be valid. The same
    holds once a model has answered without the grammar. No text at all under a grammar, even
    without reasoning, means that the runtime has taken the JSON for something else. An invalid text
    beside optional tools is asked for again in the modes for texts.
    """
    if attempts[-1].mode == TOOLS:
        return plan.modes[min(1, len(plan.modes) - 1)]
    last, before = attempts[-1], attempts[-2:-1]
    if last.verdict == "empty" and last.reply is not None and not last.reply.reasoning:
        return plan.modes[-1]
    repeats = any(
        each.mode == last.mode and _violations(each) & _violations(last) for each in before
    )
    is_unconstrained = enforced_mode(last, thinks=plan.thinks) != last.mode
    if last.mode != GRAMMAR or not (repeats or is_unconstrained):
        return last.mode
    return plan.modes[min(plan.modes.index(GRAMMAR) + 1, len(plan.modes) - 1)]


def enforced_mode(attempt: Attempt, *, thinks: bool) -> str:
    """Return the mode in which the answer was decoded for certain.

    Ollama constrains the answer of a model that should reason once its reasoning has ended. It may
    not constrain an answer without reasoning.
    """
    has_reasoning = attempt.reply is not None and bool(attempt.reply.reasoning)
    return attempt.mode if has_reasoning or not thinks else PROMPT


def _violations(attempt: Attempt) -> set[tuple[str, str, str]]:
    """Return verdict, pointer and keyword of each violation, with `*` in place of array indexes."""
    validation = attempt.validation
    assert validation is not None
    return {
        (validation.verdict, _INDEX.sub("/*", each.pointer), each.keyword)
        for each in validation.errors
    }
