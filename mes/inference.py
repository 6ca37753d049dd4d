"""The use case: admit, generate, judge, report."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from mes import structured
from mes.capabilities import needs, require
from mes.catalog import Catalog
from mes.domain import (
    Attempt,
    Caller,
    Event,
    Inference,
    InferenceRequest,
    Keywords,
    ModelSpec,
    Prompt,
    Reply,
    Runtime,
    Tell,
    Thought,
    Timings,
    Token,
    final,
    milliseconds,
    rate,
    silent,
)
from mes.provenance import provenance_of
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.scheduler import Scheduler, Turn
from mes.structured import Generate, Plan, Schema, Tools


def infer(
    request: InferenceRequest,
    *,
    catalog: Catalog,
    schema_limits: structured.Limits,
    scheduler: Scheduler,
    runtime: Runtime,
    runtime_status: RuntimeStatus,
    caller: Caller,
    request_id: str = "",
    tell: Tell = silent,
) -> Inference:
    """Run one inference and wait for it, telling how it goes.

    Raises what `Scheduler.permit` and `Runtime.generate` raise, ModelNotFound, NotCapable,
    SchemaInvalid and SchemaUnsafe. An answer that breaks its schema is no error: the judgement
    tells.
    """
    started = time.monotonic()
    spec = catalog.get(request.model_id)
    for capability, pointer in needs(request).items():
        require(capability, spec, runtime_status.pulled, pointer=pointer)
    demands = _screened(request, schema_limits)
    prompt = compose(request, spec)
    with scheduler.permit(spec, caller, request_id=request_id, tell=tell) as turn:
        deadline = time.monotonic() + (request.timeout_seconds or spec.timeout_seconds)
        generate = partial(_generate, runtime=runtime, deadline=deadline, caller=caller, tell=tell)
        attempts = _ask(prompt, request, demands, generate, deadline)
    schema = demands.schema
    return Inference(
        model_id=spec.id,
        latency_ms=milliseconds(time.monotonic() - started),
        timings=_timings(turn, attempts),
        provenance=provenance_of(
            turn, runtime_status, schema_sha256=schema.sha256 if schema else None
        ),
        attempts=attempts,
        keywords=Keywords() if schema is None else schema.keywords(final(attempts).mode),
    )


@dataclass(frozen=True, slots=True)
class _Demands:
    """What the answer, and the calls in it, have to fit."""

    schema: Schema | None
    tools: Tools


def _screened(request: InferenceRequest, limits: structured.Limits) -> _Demands:
    """Before it costs a place in the queue."""
    document = request.json_schema
    at = request.json_schema_at
    schema = None if document is None else structured.check(document, limits, at=at)
    return _Demands(schema, structured.tools_of(request.tools, limits))


def _generate(
    prompt: Prompt,
    attempt: int,
    *,
    runtime: Runtime,
    deadline: float,
    caller: Caller,
    tell: Tell,
) -> Reply:
    told = _of_attempt(attempt, tell)
    return runtime.generate(prompt, deadline=deadline, caller=caller, tell=told)


def _ask(
    prompt: Prompt,
    request: InferenceRequest,
    demands: _Demands,
    generate: Generate,
    deadline: float,
) -> tuple[Attempt, ...]:
    """As often as it takes, which without a schema is once."""
    if demands.schema is None:
        return (_ask_once(prompt, demands.tools, generate),)
    plan = _plan(request, prompt.spec, demands.schema)
    return structured.ask(prompt, demands.schema, plan, generate=generate, deadline=deadline)


def compose(request: InferenceRequest, spec: ModelSpec) -> Prompt:
    """What to ask the runtime. All options are explicit; a seed is always chosen."""
    options: dict[str, Any] = {
        **spec.options,
        **spec.load_options,
        "temperature": spec.temperature if request.temperature is None else request.temperature,
        "num_predict": spec.max_tokens if request.max_tokens is None else request.max_tokens,
        **request.sampling,
    }
    if options.get("seed", -1) < 0:
        options["seed"] = random.getrandbits(31)
    return Prompt(
        spec=spec,
        text=request.prompt,
        system=request.system_prompt,
        options=options,
        messages=request.messages,
        tools=request.tools,
        think=request.think,
        top_logprobs=request.top_logprobs,
    )


def _plan(request: InferenceRequest, spec: ModelSpec, schema: Schema) -> Plan:
    # Who reads along has read an answer by the time it is judged, and may not want another.
    usual = 1 if request.stream else spec.max_attempts
    return Plan(
        modes=schema.modes_for(constrain=request.constrain and spec.supports_json_mode),
        most_attempts=request.max_attempts or usual,
        may_grow=request.max_tokens is None,
    )


def _of_attempt(number: int, tell: Tell) -> Tell:
    """Tells of an attempt with its number, which goes without saying of the first."""
    if number == 1:
        return tell

    def tell_with_number(*events: Event) -> bool:
        return tell(*(_numbered(event, number) for event in events))

    return tell_with_number


def _numbered(event: Event, number: int) -> Event:
    return event._replace(attempt=number) if isinstance(event, Token | Thought) else event


def _ask_once(prompt: Prompt, tools: Tools, generate: Generate) -> Attempt:
    began = time.monotonic()
    reply = generate(prompt, 1)
    seconds = time.monotonic() - began
    judged = tuple(map(tools.judge, reply.tool_calls))
    return Attempt("free", prompt.options, reply, None, seconds, judged)


def _timings(turn: Turn, attempts: tuple[Attempt, ...]) -> Timings:
    """Of all attempts together; the first token is that of the first one."""
    replies = [each.reply for each in attempts if each.reply is not None]
    generation_ms = sum(reply.generation_ms for reply in replies)
    return Timings(
        queue_ms=milliseconds(turn.queue_seconds),
        load_ms=milliseconds(turn.load_seconds),
        prompt_ms=round(sum(reply.prompt_ms for reply in replies)),
        generation_ms=round(generation_ms),
        time_to_first_token_ms=round(replies[0].time_to_first_token_ms),
        tokens_per_second=rate(
            sum(each.usage.completion_tokens for each in replies), generation_ms
        ),
        cold_start=turn.load_seconds > 0,
    )
