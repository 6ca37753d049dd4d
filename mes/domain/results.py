"""Results: the replies of an inference, their validation, and its outcome."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mes.domain.inference_request import ToolCall


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens, counted by the runtime.

    `counted_by_mes` is the part of `completion_tokens` that the runtime does not report: one for
    each piece of text that it has sent, which is at most the number of tokens.
    """

    prompt_tokens: int
    completion_tokens: int
    counted_by_mes: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.counted_by_mes + other.counted_by_mes,
        )

    def with_counted(self, pieces: int) -> Usage:
        """Return the usage with completion tokens that the runtime does not report."""
        return self + Usage(0, pieces, counted_by_mes=pieces)


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Return the tokens of several generations together."""
    return sum(usages, start=Usage(0, 0))


@dataclass(frozen=True, slots=True)
class Logprob:
    """The natural logarithm of a token's probability.

    `bytes` are the token's text in UTF-8. `top_logprobs` are the most probable tokens in its place.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[Logprob, ...] = ()


def milliseconds(seconds: float) -> int:
    """Return a duration as responses contain it: whole milliseconds."""
    return round(seconds * 1000)


def tokens_per_second(tokens: int, milliseconds: float) -> float | None:
    """Return the rate, rounded to one decimal; None if no time was measured."""
    return round(tokens / milliseconds * 1000, 1) if milliseconds else None


@dataclass(frozen=True, slots=True)
class GenerationTimings:
    """The time that each phase of a generation took in the runtime."""

    prompt_ms: int
    generation_ms: int
    time_to_first_token_ms: int
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class Timings(GenerationTimings):
    """The time that each phase of an inference took, over all its attempts.

    `time_to_first_token_ms` is that of the first attempt.
    """

    queue_ms: int
    load_ms: int
    cold_start: bool


PREFIX_CACHE_USES = ("unknown", "not_used", "used")


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished generation. The runtime measured the times, in milliseconds.

    `reasoning` is the reasoning of the model before its answer, and no part of `text`. `logprobs`
    belong to the tokens of `text`. `dropped_tool_calls` is the number of calls that the client did
    not want beside the first. `load_ms` is the time for which the runtime loaded the model, 0 if it
    was in memory; `time_to_first_token_ms` does not contain it. `cached_tokens` are those of the
    prompt that the runtime took from its cache; None if it does not report them.
    """

    text: str
    finish_reason: str
    usage: Usage
    prompt_ms: float
    generation_ms: float
    time_to_first_token_ms: float
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    dropped_tool_calls: int = 0
    load_ms: float = 0.0
    cached_tokens: int | None = None

    @property
    def prefix_cache(self) -> str:
        """Whether the beginning of the prompt was taken from a cache: one of PREFIX_CACHE_USES."""
        unknown, not_used, used = PREFIX_CACHE_USES
        if self.cached_tokens is None:
            return unknown
        return used if self.cached_tokens else not_used

    def with_first_tool_call(self) -> Reply:
        """Return the reply with at most one tool call."""
        dropped = len(self.tool_calls) - 1
        if dropped < 1:
            return self
        return replace(self, tool_calls=self.tool_calls[:1], dropped_tool_calls=dropped)

    @property
    def timings(self) -> GenerationTimings:
        """The times, rounded as responses contain them."""
        return GenerationTimings(
            prompt_ms=round(self.prompt_ms),
            generation_ms=round(self.generation_ms),
            time_to_first_token_ms=round(self.time_to_first_token_ms),
            tokens_per_second=tokens_per_second(self.usage.completion_tokens, self.generation_ms),
        )


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of an embedding, one for each text in the order of the texts.

    `load_ms` is the time for which the runtime loaded the model, 0 if it was in memory.
    """

    values: tuple[array[float], ...]
    prompt_tokens: int
    load_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation of the schema by an answer.

    `pointer` is a JSON pointer into the answer, `keyword` the keyword of the schema.
    """

    pointer: str
    keyword: str
    detail: str


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The validation of an answer against a schema.

    `verdict` is valid, not_json, schema_violation, undecided, no_tool_call, truncated, empty or
    aborted. It is undecided if a pattern cannot be matched within its limits, or if the schema of a
    tool cannot be used; the reason is in `errors`. `parsed` is the JSON value of a
    valid answer. `extraction` is the place of the JSON in the answer: the `whole` text, a code
    `fence`, or the surrounding `prose`.
    """

    verdict: str
    parsed: Any = None
    errors: tuple[Violation, ...] = ()
    extraction: str | None = None

    @property
    def valid(self) -> bool:
        return self.verdict == "valid"

    @property
    def failed(self) -> bool:
        """Whether a tool call is not valid; a call that nothing is known about has not failed."""
        return self.verdict not in ("valid", "undecided")

    def json_alone(self, answer: str) -> str:
        """Return the answer; of a valid one in a code fence or in prose, the JSON alone."""
        if self.valid and self.extraction != "whole":
            return json.dumps(self.parsed, ensure_ascii=False)
        return answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One generation of an inference, with its decoding mode, options, reply and validation.

    Without a schema the mode is `free`, or `tools` if tools are offered, and `validation` is None.
    `tool_calls` are the calls that the model made or wrote as text; `tool_call_validations` has one
    result for each of them, in their order. An aborted attempt has no reply.
    """

    mode: str
    options: Mapping[str, Any]
    reply: Reply | None
    validation: ValidationResult | None
    seconds: float
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_validations: tuple[ValidationResult, ...] = ()

    @property
    def verdict(self) -> str | None:
        return None if self.validation is None else self.validation.verdict


@dataclass(frozen=True, slots=True)
class Provenance:
    """The versions that, with the options, are needed to reproduce an answer.

    `warnings` are the reasons why one of them is not known.
    """

    model_digest: str | None
    quantization: str | None
    runtime: str | None
    schema_sha256: str | None
    mes_version: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeywordSupport:
    """A schema's keywords: those that the runtime enforces during decoding, and the others."""

    enforced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inference:
    """The result of an inference, with all its attempts. `keywords` are those of the schema."""

    model_id: str
    latency_ms: int
    timings: Timings
    provenance: Provenance
    attempts: tuple[Attempt, ...]
    keywords: KeywordSupport

    @cached_property
    def final(self) -> Attempt:
        """The attempt whose reply is the answer."""
        return final_attempt(self.attempts)

    @property
    def reply(self) -> Reply:
        assert self.final.reply is not None
        return self.final.reply

    @cached_property
    def usage(self) -> Usage:
        """The tokens of all attempts together."""
        return total_usage(each.reply.usage for each in self.attempts if each.reply is not None)

    @cached_property
    def failure(self) -> ValidationResult | None:
        """The failed validation of the answer, or of the first tool call that is invalid."""
        answer = self.final.validation
        if answer is not None and not answer.valid:
            return answer
        return next((call for call in self.final.tool_call_validations if call.failed), None)


def final_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """Return the last attempt that has a reply; its reply is the answer."""
    return next(attempt for attempt in reversed(attempts) if attempt.reply is not None)
