"""What inference answers, as clients see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mes.domain import (
    Attempt,
    Event,
    Inference,
    Loading,
    Logprob,
    Queued,
    Reply,
    Thought,
    Token,
    ToolCall,
    Usage,
    ValidationResult,
    tokens_per_second,
)

_SAID = (Token, Thought)
_TYPES = {Queued: "queued", Loading: "loading", Token: "token", Thought: "reasoning"}


def dump(inference: Inference, request_id: str) -> dict[str, Any]:
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
        "timings": members(inference.timings),
        "structured": _structured(inference, validation) if validation else None,
        "provenance": _provenance(inference),
        "request_id": request_id,
    }
    if reply.reasoning:
        answer["reasoning"] = reply.reasoning
    if reply.logprobs:
        answer["logprobs"] = dump_logprobs(reply.logprobs)
    if reply.tool_calls:
        calls = zip(reply.tool_calls, inference.final.of_calls, strict=True)
        answer["tool_calls"] = [_call(*each) for each in calls]
    if failure is not None:
        answer["code"] = failure.verdict
        answer["error"] = _in_words(failure)
    return answer


def dump_event(event: Event) -> dict[str, Any]:
    """One line of a streamed inference, before its result."""
    kind = _TYPES[type(event)]
    if not isinstance(event, _SAID):
        return {"type": kind, **members(event)}
    line: dict[str, Any] = {"type": kind, "text": event.text}
    if event.attempt != 1:
        line["attempt"] = event.attempt
    if isinstance(event, Token) and event.logprobs:
        line["logprobs"] = dump_logprobs(event.logprobs)
    return line


def dump_logprobs(logprobs: Iterable[Logprob]) -> list[dict[str, Any]]:
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
    return {**members(call), "verdict": validation.verdict, "errors": _errors(validation)}


def _provenance(inference: Inference) -> dict[str, Any]:
    options = inference.final.options
    return {**members(inference.provenance), "options": options, "seed": options["seed"]}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _errors(validation: ValidationResult) -> list[dict[str, Any]]:
    return [members(violation) for violation in validation.errors]


def _in_words(validation: ValidationResult) -> str:
    first = validation.errors[0]
    return f"{first.pointer}: {first.detail}" if first.pointer else first.detail


def members(record: Any) -> dict[str, Any]:
    """All of a frozen record, under the names it has."""
    return {name: getattr(record, name) for name in record.__slots__}
