"""Run an inference: look up the model, check the request, wait for a permit, generate, report."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mes import __version__, structured
from mes.config.catalog import Catalog
from mes.domain import (
    Attempt,
    Client,
    Emit,
    Inference,
    InferenceRequest,
    KeywordSupport,
    ModelSpec,
    Prompt,
    Provenance,
    PulledModel,
    Reply,
    Runtime,
    Timings,
    final_attempt,
    milliseconds,
    no_op,
    tokens_per_second,
)
from mes.domain.capabilities import (
    COMPLETION,
    THINKING,
    TOKENIZE,
    TOOLS,
    VISION,
    naming_fields,
    not_capable,
)
from mes.domain.events import with_attempt_number, without_text
from mes.domain.plain_turns import as_plain_turns
from mes.domain.timeouts import naming_timeout
from mes.errors import Mistake, RequestInvalid
from mes.scheduling.answer_versions import AnswerVersions
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.scheduler import GrantedPermit, Scheduler
from mes.structured import AnswerForm, RetryPlan, Schema


def infer(
    request: InferenceRequest,
    *,
    catalog: Catalog,
    schema_limits: structured.SchemaLimits,
    scheduler: Scheduler,
    runtime: Runtime,
    runtime_status: RuntimeStatus,
    versions: AnswerVersions,
    client: Client,
    request_id: str = "",
    is_continued: bool = False,
    emit: Emit = no_op,
) -> Inference:
    """Run one inference and return its result; `emit` receives the progress.

    `is_continued`: the request has had a permit before, for another of its choices.

    An answer that violates its schema is not an error: the result contains its validation.

    Raises ModelNotFound, NotCapable, SchemaInvalid, SchemaUnsafe, and the errors of
    `Scheduler.permit` and `Runtime.generate`.
    """
    started = time.monotonic()
    spec = catalog.get(request.model_id)
    _require_capabilities(request, spec, runtime_status)
    form = _answer_form(request, request_id, spec, runtime_status, schema_limits)
    prompt = _build_prompt(request, spec, runtime_status)
    with scheduler.permit(
        spec, client, request_id=request_id, is_continued=is_continued, emit=emit
    ) as permit:
        deadline = time.monotonic() + (request.timeout_seconds or spec.timeout_seconds)
        if request.prompt_tokens:
            text = _detokenize(request, runtime, spec, deadline, client)
            prompt = replace(prompt, text=text)
        emit = emit if form.streams_text else without_text(emit)
        generate = partial(
            _generate, request, runtime=runtime, deadline=deadline, client=client, emit=emit
        )
        plan = _retry_plan(request, spec, form)
        attempts = structured.generate_with_retries(prompt, form, plan, generate, deadline)
        permit = versions.confirm(permit, spec, loaded=_load_ms(attempts) > 0)
    return Inference(
        model_id=spec.id,
        latency_ms=milliseconds(time.monotonic() - started),
        timings=_timings(permit, attempts),
        provenance=provenance_of(permit, runtime_status, schema=form.schema),
        attempts=attempts,
        keywords=_keyword_support(form.schema, attempts, thinks=plan.thinks),
    )


def provenance_of(
    permit: GrantedPermit, runtime_status: RuntimeStatus, *, schema: Schema | None = None
) -> Provenance:
    """Return the versions of the model, the runtime, the schema and MES behind a result."""
    return Provenance(
        model_digest=permit.digest,
        quantization=permit.quantization,
        runtime=runtime_status.version,
        schema_sha256=None if schema is None else schema.sha256,
        mes_version=__version__,
        warnings=permit.warnings,
    )


def _require_capabilities(
    request: InferenceRequest, spec: ModelSpec, runtime_status: RuntimeStatus
) -> None:
    for capability, pointer in required_capabilities(request).items():
        require_capability(capability, spec, runtime_status.pulled, pointer=pointer)


def required_capabilities(request: InferenceRequest) -> dict[str, str]:
    """Return the capabilities that the request needs, each with a JSON pointer to the field.

    Every inference needs `completion`.
    """
    has_images = any(message.images for message in request.messages)
    candidates = {
        COMPLETION: (request.model_pointer, True),
        # A call that is required can be written as JSON under a grammar.
        TOOLS: ("/tools", request.allowed_tools and not request.must_call),
        VISION: ("/messages", has_images),
        THINKING: (request.think_pointer, request.think),
        TOKENIZE: ("/prompt", request.prompt_tokens),
    }
    return {capability: pointer for capability, (pointer, needed) in candidates.items() if needed}


def require_capability(
    capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel], *, pointer: str
) -> None:
    """Check that the model has the capability.

    The check precedes the queue, so that no model is evicted for one that cannot serve the request.
    An older runtime does not list capabilities; the request is then tried.

    Args:
        pulled: the models on the runtime's disk, by tag.
        pointer: a JSON pointer to the field of the request that needs the capability.

    Raises:
        NotCapable: the runtime lists the model's capabilities, and this one is not among them.
    """
    if _lacks(capability, spec, pulled):
        raise not_capable(capability, spec.id, pointer=pointer)


def _lacks(capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel]) -> bool:
    model = pulled.get(spec.tag)
    known = model.capabilities if model is not None else None
    return bool(known) and capability not in (known or ())


def _answer_form(
    request: InferenceRequest,
    request_id: str,
    spec: ModelSpec,
    runtime_status: RuntimeStatus,
    limits: structured.SchemaLimits,
) -> AnswerForm:
    """Return the form of the answer, checked before the request takes a place in the queue."""
    # The id of a call that is written as text is unique among the choices.
    choice = f"_{request.seed_offset}" if request.seed_offset else ""
    return structured.answer_form(
        request,
        limits,
        runtime=runtime_status.version,
        calls_tools=not _lacks(TOOLS, spec, runtime_status.pulled),
        call_id=f"call_{request_id}{choice}",
    )


def _build_prompt(
    request: InferenceRequest, spec: ModelSpec, runtime_status: RuntimeStatus
) -> Prompt:
    """Return the runtime's input, with all options explicit and a seed in any case."""
    options: dict[str, Any] = {
        **spec.options,
        **spec.load_options,
        "temperature": spec.temperature if request.temperature is None else request.temperature,
        "num_predict": spec.max_tokens if request.max_tokens is None else request.max_tokens,
        **request.sampling,
    }
    if options.get("seed", -1) < 0:
        options["seed"] = random.getrandbits(31)
    elif request.seed_offset:
        options["seed"] = (options["seed"] + request.seed_offset) % 2**31
    # Runtimes accept tools with a conversation only.
    messages = request.conversation if request.allowed_tools else request.messages
    if _lacks(TOOLS, spec, runtime_status.pulled):
        messages = as_plain_turns(messages)
    return Prompt(
        spec=spec,
        text=request.prompt,
        system=request.system_prompt,
        options=options,
        messages=messages,
        tools=tuple(request.allowed_tools.values()),
        think=request.think,
        top_logprobs=request.top_logprobs,
    )


def _detokenize(
    request: InferenceRequest, runtime: Runtime, spec: ModelSpec, deadline: float, client: Client
) -> str:
    """Return the text of the prompt, which then takes the way of every text.

    Raises RequestInvalid if the token ids have no text.
    """
    timeout = naming_timeout(
        "conversion of token ids", spec, requested_seconds=request.timeout_seconds
    )
    with timeout, naming_fields(spec.id, {}):
        text = runtime.detokenize(spec, request.prompt_tokens, deadline=deadline, client=client)
    if not text:
        detail = "the token ids of the prompt have no text; send other ids, or text"
        raise RequestInvalid(detail, mistakes=(Mistake("/prompt", detail),))
    return text


def _retry_plan(request: InferenceRequest, spec: ModelSpec, form: AnswerForm) -> RetryPlan:
    # A client that streams has read the answer before it is validated, and may not want another.
    default_attempts = 1 if request.stream else spec.max_attempts
    is_free = form.schema is None and not request.must_call
    return RetryPlan(
        modes=form.modes(constrain=request.constrain and spec.supports_json_mode),
        max_attempts=1 if is_free else request.max_attempts or default_attempts,
        may_raise_max_tokens=request.max_tokens is None,
        thinks=bool(request.think),
        schema_pointer="/tools" if request.json_schema is None else request.json_schema_pointer,
    )


def _generate(
    request: InferenceRequest,
    prompt: Prompt,
    attempt: int,
    *,
    runtime: Runtime,
    deadline: float,
    client: Client,
    emit: Emit,
) -> Reply:
    emit = with_attempt_number(attempt, emit)
    pointers = {COMPLETION: request.model_pointer, THINKING: request.think_pointer}
    timeout = naming_timeout(
        "generation",
        prompt.spec,
        requested_seconds=request.timeout_seconds,
        max_tokens=prompt.options["num_predict"],
        attempt=attempt,
    )
    with timeout, naming_fields(prompt.spec.id, pointers):
        reply = runtime.generate(prompt, deadline=deadline, client=client, emit=emit)
    is_one_call = request.forced_function is not None or not request.parallel_tool_calls
    return reply.with_first_tool_call() if is_one_call else reply


def _timings(permit: GrantedPermit, attempts: tuple[Attempt, ...]) -> Timings:
    """Return the times of all attempts together; the first token is that of the first attempt."""
    replies = [attempt.reply for attempt in attempts if attempt.reply is not None]
    generation_ms = sum(reply.generation_ms for reply in replies)
    load_ms = milliseconds(permit.load_seconds) + round(_load_ms(attempts))
    completion_tokens = sum(reply.usage.completion_tokens for reply in replies)
    return Timings(
        queue_ms=milliseconds(permit.queue_seconds),
        load_ms=load_ms,
        prompt_ms=round(sum(reply.prompt_ms for reply in replies)),
        generation_ms=round(generation_ms),
        time_to_first_token_ms=round(replies[0].time_to_first_token_ms),
        tokens_per_second=tokens_per_second(completion_tokens, generation_ms),
        cold_start=permit.load_seconds > 0 or _load_ms(attempts) > 0,
    )


def _load_ms(attempts: tuple[Attempt, ...]) -> float:
    """Return for how long the runtime loaded the model during the generations themselves."""
    return sum(attempt.reply.load_ms for attempt in attempts if attempt.reply is not None)


def _keyword_support(
    schema: Schema | None, attempts: tuple[Attempt, ...], *, thinks: bool
) -> KeywordSupport:
    """Return the schema's keywords that the runtime enforced in the final attempt, and the rest."""
    if schema is None:
        return KeywordSupport()
    return schema.keywords(structured.enforced_mode(final_attempt(attempts), thinks=thinks))
