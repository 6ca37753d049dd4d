"""The use case: admit, generate, judge, report."""

from __future__ import annotations

import dataclasses
import random
import time
from typing import Any

from mes import structured
from mes.catalog import Catalog
from mes.domain import (
    Caller,
    Inference,
    InferenceRequest,
    ModelSpec,
    Prompt,
    Provenance,
    Reply,
    Runtime,
    Timings,
)
from mes.errors import SchemaRefused
from mes.scheduling.scheduler import Scheduler, Turn
from mes.structured import Schema


def infer(
    request: InferenceRequest,
    *,
    catalog: Catalog,
    scheduler: Scheduler,
    runtime: Runtime,
    runtime_version: str | None,
    caller: Caller,
    request_id: str = "",
) -> Inference:
    """Run one inference and wait for it.

    Raises what `Scheduler.permit` and `Runtime.generate` raise, ModelNotFound, SchemaInvalid and
    SchemaUnsafe. An answer that breaks its schema is no error: the judgement tells.
    """
    started = time.monotonic()
    spec = catalog.get(request.model_id)
    schema = None if request.json_schema is None else structured.check(request.json_schema)
    prompt = compose(request, spec, schema)
    with scheduler.permit(spec, caller, request_id=request_id) as turn:
        reply = _generate(prompt, schema, request, runtime=runtime, caller=caller)
    return Inference(
        model_id=spec.id,
        output=reply.text,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        latency_ms=_ms(time.monotonic() - started),
        timings=_timings(turn, reply),
        provenance=_provenance(prompt, schema, turn, runtime_version),
        judgement=None if schema is None else schema.judge(reply.text, reply.finish_reason),
    )


def compose(request: InferenceRequest, spec: ModelSpec, schema: Schema | None) -> Prompt:
    """What to ask the runtime. All options are explicit; a seed is always chosen."""
    options: dict[str, Any] = {
        **spec.options,
        **spec.load_options,
        "temperature": spec.temperature if request.temperature is None else request.temperature,
        "num_predict": spec.max_tokens if request.max_tokens is None else request.max_tokens,
        "seed": random.getrandbits(31),
        **request.sampling,
    }
    prompt = Prompt(spec, request.prompt, request.system_prompt, options)
    if schema is None:
        return prompt
    if spec.supports_json_mode:
        return dataclasses.replace(prompt, format=schema.document)
    return in_words(prompt, schema)


def in_words(prompt: Prompt, schema: Schema) -> Prompt:
    """The same prompt with the schema told instead of enforced."""
    text = f"{prompt.text}\n\n{schema.instruction}"
    return dataclasses.replace(prompt, text=text, format=None)


def _generate(
    prompt: Prompt,
    schema: Schema | None,
    request: InferenceRequest,
    *,
    runtime: Runtime,
    caller: Caller,
) -> Reply:
    seconds = request.timeout_seconds or prompt.spec.timeout_seconds
    deadline = time.monotonic() + seconds
    try:
        return runtime.generate(prompt, deadline=deadline, caller=caller)
    except SchemaRefused:
        # No token was spent: the runtime cannot make a grammar of it, so it is told in words.
        assert schema is not None
        return runtime.generate(in_words(prompt, schema), deadline=deadline, caller=caller)


def _timings(turn: Turn, reply: Reply) -> Timings:
    seconds = reply.generation_ms / 1000
    return Timings(
        queue_ms=_ms(turn.queue_seconds),
        load_ms=_ms(turn.load_seconds),
        prompt_ms=round(reply.prompt_ms),
        generation_ms=round(reply.generation_ms),
        time_to_first_token_ms=round(reply.time_to_first_token_ms),
        tokens_per_second=round(reply.usage.completion_tokens / seconds, 1) if seconds else None,
        cold_start=turn.load_seconds > 0,
    )


def _provenance(
    prompt: Prompt, schema: Schema | None, turn: Turn, runtime_version: str | None
) -> Provenance:
    return Provenance(
        model_digest=turn.digest,
        quantization=turn.quantization,
        runtime=runtime_version,
        options=prompt.options,
        schema_sha256=None if schema is None else schema.sha256,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
