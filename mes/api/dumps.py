"""What inference answers, as clients see it."""

from __future__ import annotations

from typing import Any

from mes.domain import (
    Attempt,
    Event,
    Inference,
    Judgement,
    Loading,
    Queued,
    Reply,
    Thought,
    Token,
    Usage,
    rate,
)

_TYPES = {Queued: "queued", Loading: "loading", Token: "token", Thought: "reasoning"}


def dump(inference: Inference, request_id: str) -> dict[str, Any]:
    """The answer to `POST /v1/inference`."""
    reply, judgement = inference.reply, inference.judgement
    answer = {
        "success": judgement is None or judgement.valid,
        "model_id": inference.model_id,
        "output": reply.text,
        "parsed": judgement.parsed if judgement else None,
        "finish_reason": reply.finish_reason,
        "usage": _usage(inference.usage),
        "latency_ms": inference.latency_ms,
        "timings": _members(inference.timings),
        "structured": _structured(inference, judgement) if judgement else None,
        "provenance": _provenance(inference),
        "request_id": request_id,
    }
    if reply.reasoning:
        answer["reasoning"] = reply.reasoning
    if judgement is not None and not judgement.valid:
        answer["code"] = judgement.verdict
        answer["error"] = _in_words(judgement)
    return answer


def dump_event(event: Event) -> dict[str, Any]:
    """One line of a streamed inference, before its result."""
    kind = _TYPES[type(event)]
    if not isinstance(event, Token | Thought):
        return {"type": kind, **_members(event)}
    line = {"type": kind, "text": event.text}
    return line if event.attempt == 1 else {**line, "attempt": event.attempt}


def _structured(inference: Inference, judgement: Judgement) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict,
        "attempts": len(inference.attempts),
        "first_verdict": inference.attempts[0].verdict,
        "mode": inference.final.mode,
        "extraction": judgement.extraction,
        "enforced": inference.keywords.enforced,
        "ignored": inference.keywords.ignored,
        "errors": _errors(judgement),
        "attempt_details": [_attempt(attempt) for attempt in inference.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    """One attempt, whole, so that the first can be scored for itself."""
    judgement, reply = attempt.judgement, attempt.reply
    return {
        "mode": attempt.mode,
        "verdict": attempt.verdict,
        "errors": _errors(judgement) if judgement else [],
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
            "tokens_per_second": rate(reply.usage.completion_tokens, reply.generation_ms),
        },
    }


def _provenance(inference: Inference) -> dict[str, Any]:
    options = inference.final.options
    return {**_members(inference.provenance), "options": options, "seed": options["seed"]}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _errors(judgement: Judgement) -> list[dict[str, Any]]:
    return [_members(violation) for violation in judgement.errors]


def _in_words(judgement: Judgement) -> str:
    first = judgement.errors[0]
    return f"{first.pointer}: {first.detail}" if first.pointer else first.detail


def _members(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
