"""Domain objects as the JSON that clients see."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Response

from mes.config.catalog import Catalog
from mes.domain import (
    Attempt,
    Event,
    Inference,
    Loading,
    Logprob,
    ModelSpec,
    Queued,
    Reply,
    Thought,
    Token,
    ToolCall,
    Usage,
    ValidationResult,
    milliseconds,
    tokens_per_second,
)
from mes.scheduling.queue_estimate import QueuePosition
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State

# Answers: JSON out.


def json_response(document: dict[str, Any], status: int = 200) -> Response:
    """The document as JSON."""
    return Response(encode_json(document), status, mimetype="application/json")


def encode_json(document: dict[str, Any], end: bytes = b"") -> bytes:
    """The document as it is sent."""
    try:
        return orjson.dumps(document) + end
    except TypeError:
        # A model may answer with an integer of more than 64 bits.
        return json.dumps(document).encode() + end


# What inference answers, as clients see it.

_SAID = (Token, Thought)
_TYPES = {Queued: "queued", Loading: "loading", Token: "token", Thought: "reasoning"}


def serialize_inference(inference: Inference, request_id: str) -> dict[str, Any]:
    """The answer to `POST /v1/inference`."""
    reply, validation, failure = inference.reply, inference.validation, inference.failure
    answer = {
        "success": failure is None,
        "model_id": inference.model_id,
        "output": reply.text,
        "parsed": validation.parsed if validation else None,
        "finish_reason": reply.finish_reason,
        "usage": _usage(inference.usage),
        "latency_ms": inference.latency_ms,
        "timings": to_json_fields(inference.timings),
        "structured": _structured(inference, validation) if validation else None,
        "provenance": _provenance(inference),
        "request_id": request_id,
    }
    if reply.reasoning:
        answer["reasoning"] = reply.reasoning
    if reply.logprobs:
        answer["logprobs"] = serialize_logprobs(reply.logprobs)
    if reply.tool_calls:
        calls = zip(reply.tool_calls, inference.final.tool_call_validations, strict=True)
        answer["tool_calls"] = [_call(*each) for each in calls]
    if failure is not None:
        answer["code"] = failure.verdict
        answer["error"] = _in_words(failure)
    return answer


def serialize_event(event: Event) -> dict[str, Any]:
    """One line of a streamed inference, before its result."""
    kind = _TYPES[type(event)]
    if not isinstance(event, _SAID):
        return {"type": kind, **to_json_fields(event)}
    line: dict[str, Any] = {"type": kind, "text": event.text}
    if event.attempt != 1:
        line["attempt"] = event.attempt
    if isinstance(event, Token) and event.logprobs:
        line["logprobs"] = serialize_logprobs(event.logprobs)
    return line


def serialize_logprobs(logprobs: Iterable[Logprob]) -> list[dict[str, Any]]:
    """As Ollama and OpenAI write them."""
    return [
        {**_likely(each), "top_logprobs": [_likely(top) for top in each.top_logprobs]}
        for each in logprobs
    ]


def _likely(each: Logprob) -> dict[str, Any]:
    return {"token": each.token, "logprob": each.logprob, "bytes": each.bytes}


def _structured(inference: Inference, validation: ValidationResult) -> dict[str, Any]:
    return {
        "verdict": validation.verdict,
        "attempts": len(inference.attempts),
        "first_verdict": inference.attempts[0].verdict,
        "mode": inference.final.mode,
        "extraction": validation.extraction,
        "enforced": inference.keywords.enforced,
        "ignored": inference.keywords.ignored,
        "errors": _errors(validation),
        "attempt_details": [_attempt(attempt) for attempt in inference.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    """One attempt, whole, so that the first can be scored for itself."""
    validation, reply = attempt.validation, attempt.reply
    return {
        "mode": attempt.mode,
        "verdict": attempt.verdict,
        "errors": _errors(validation) if validation else [],
        **{name: attempt.options[name] for name in ("seed", "temperature")},
        "max_tokens": attempt.options["num_predict"],
        **(_reply(reply) if reply else {}),
    }


def _reply(reply: Reply) -> dict[str, Any]:
    return {
        "output": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": _usage(reply.usage),
        "timings": {
            "prompt_ms": round(reply.prompt_ms),
            "generation_ms": round(reply.generation_ms),
            "time_to_first_token_ms": round(reply.time_to_first_token_ms),
            "tokens_per_second": tokens_per_second(
                reply.usage.completion_tokens, reply.generation_ms
            ),
        },
    }


def _call(call: ToolCall, validation: ValidationResult) -> dict[str, Any]:
    return {**to_json_fields(call), "verdict": validation.verdict, "errors": _errors(validation)}


def _provenance(inference: Inference) -> dict[str, Any]:
    options = inference.final.options
    return {**to_json_fields(inference.provenance), "options": options, "seed": options["seed"]}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _errors(validation: ValidationResult) -> list[dict[str, Any]]:
    return [to_json_fields(violation) for violation in validation.errors]


def _in_words(validation: ValidationResult) -> str:
    first = validation.errors[0]
    return f"{first.pointer}: {first.detail}" if first.pointer else first.detail


def to_json_fields(record: Any) -> dict[str, Any]:
    """All of a frozen record, under the names it has."""
    return {name: getattr(record, name) for name in record.__slots__}


# Descriptions of models: the configuration, the shared state and the runtime put together.


def serialize_model(spec: ModelSpec, state: State, runtime_status: RuntimeStatus) -> dict[str, Any]:
    """One model as `GET /v1/models` and `GET /v1/status` show it."""
    statistics = state.statistics.get(spec.tag)
    return {
        "id": spec.id,
        "name": spec.display_name,
        "status": _status(spec, state, runtime_status),
        "size_gb": spec.size_gb,
        "context_window": spec.context_window,
        "supports_json": spec.supports_json_mode,
        "loaded": runtime_status.running and state.ready(spec.tag),
        "in_flight": state.in_flight(spec.tag),
        "queued": len(state.waiting(spec.tag)),
        "oldest_wait_ms": _oldest_wait_ms(spec, state),
        "max_concurrent": spec.max_concurrent,
        "max_queue": spec.max_queue,
        "pinned": spec.pinned,
        "loads": statistics.loads if statistics else 0,
        "evictions": statistics.evictions if statistics else 0,
    }


def serialize_openai_model(spec: ModelSpec) -> dict[str, Any]:
    """One model as an OpenAI client expects it."""
    return {"id": spec.id, "object": "model", "created": 0, "owned_by": "mes"}


def serialize_queue_position(standing: QueuePosition, catalog: Catalog) -> dict[str, Any]:
    """One request that waits its turn."""
    spec = catalog.by_tag(standing.model)
    expected = standing.expected_seconds
    return {
        "request_id": standing.request,
        "model_id": spec.id if spec else standing.model,
        "position": standing.position,
        "waited_ms": milliseconds(standing.waited_seconds),
        "expected_start_ms": None if expected is None else milliseconds(expected),
    }


def _oldest_wait_ms(spec: ModelSpec, state: State) -> int | None:
    arrived = [ticket.arrived_at for ticket in state.waiting(spec.tag)[:1]]
    return milliseconds(time.monotonic() - arrived[0]) if arrived else None


def _status(spec: ModelSpec, state: State, runtime_status: RuntimeStatus) -> str:
    if not spec.enabled:
        return "disabled"
    if spec.tag in state.registry and runtime_status.running:
        return "ready" if state.ready(spec.tag) else "loading"
    trouble = state.load_failures.get(spec.tag)
    if not runtime_status.running or (trouble is not None and trouble.until > time.monotonic()):
        return "unavailable"
    return "available" if spec.tag in runtime_status.pulled else "not_pulled"
