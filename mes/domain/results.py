"""Results: the replies of a runtime, their validation, and the inference made of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mes.domain.inference_request import ToolCall


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens, counted by the runtime."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Logprob:
    """The natural logarithm of a token's probability.

    `bytes` are the token's text in UTF-8. `top_logprobs` are the most probable tokens in its place.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished generation. The runtime measured the times, in milliseconds.

    `reasoning` is the reasoning of the model before its answer, and no part of `text`. `logprobs`
    belong to the tokens of `text`.
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

    @property
    def tokens_per_second(self) -> float | None:
        return tokens_per_second(self.usage.completion_tokens, self.generation_ms)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of an embedding, one for each text in the order of the texts."""

    values: tuple[array[float], ...]
    prompt_tokens: int


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Return the sum of the usages."""
    counts = [(usage.prompt_tokens, usage.completion_tokens) for usage in usages]
    return Usage(*map(sum, zip(*counts, strict=True)))


def milliseconds(seconds: float) -> int:
    """Return a duration as responses contain it: whole milliseconds."""
    return round(seconds * 1000)


def tokens_per_second(tokens: int, milliseconds: float) -> float | None:
    """Return the rate, rounded to one decimal; None if no time was measured."""
    return round(tokens / milliseconds * 1000, 1) if milliseconds else None


@dataclass(frozen=True, slots=True)
class Timings:
    """The time that each phase of an inference took, over all its attempts.

    `time_to_first_token_ms` is that of the first attempt.
    """

    queue_ms: int
    load_ms: int
    prompt_ms: int
    generation_ms: int
    time_to_first_token_ms: int
    tokens_per_second: float | None
    cold_start: bool


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

    `verdict` is valid, not_json, schema_violation, truncated, empty or aborted. `parsed` is the
    JSON value of a valid answer. `extraction` is the place of the JSON in the answer: the `whole`
    text, a code `fence`, or the surrounding `prose`.
    """

    verdict: str
    parsed: Any = None
    errors: tuple[Violation, ...] = ()
    extraction: str | None = None

    @property
    def valid(self) -> bool:
        return self.verdict == "valid"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One generation of an inference, with its decoding mode, options, reply and validation.

    Without a schema the mode is `free` and `validation` is None. `tool_call_validations` has one
    result for each tool call of the reply, in their order. An aborted attempt has no reply.
    """

    mode: str
    options: Mapping[str, Any]
    reply: Reply | None
    validation: ValidationResult | None
    seconds: float
    tool_call_validations: tuple[ValidationResult, ...] = ()

    @property
    def verdict(self) -> str | None:
        return None if self.validation is None else self.validation.verdict


@dataclass(frozen=True, slots=True)
class Provenance:
    """The versions that, with the options, are needed to reproduce an answer."""

    model_digest: str | None
    quantization: str | None
    runtime: str | None
    schema_sha256: str | None
    mes_version: str


@dataclass(frozen=True, slots=True)
class KeywordSupport:
    """A schema's keywords: those that the runtime enforces during decoding, and the others."""

    enforced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """The result of an inference, with all its attempts. `keywords` are those of the schema."""

    model_id: str
    latency_ms: int
    timings: Timings
    provenance: Provenance
    attempts: tuple[Attempt, ...]
    keywords: KeywordSupport

    @property
    def final(self) -> Attempt:
        return final_attempt(self.attempts)

    @property
    def reply(self) -> Reply:
        assert self.final.reply is not None
        return self.final.reply

    @property
    def usage(self) -> Usage:
        """The tokens of all attempts together."""
        replies = (attempt.reply for attempt in self.attempts)
        return total_usage(reply.usage for reply in replies if reply is not None)

    @property
    def validation(self) -> ValidationResult | None:
        return self.final.validation

    @property
    def failure(self) -> ValidationResult | None:
        """The failed validation of the answer, or of the first tool call that is invalid."""
        results = (self.validation, *self.final.tool_call_validations)
        return next((result for result in results if result is not None and not result.valid), None)


def final_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """Return the last attempt that has a reply; its reply is the answer."""
    return next(attempt for attempt in reversed(attempts) if attempt.reply is not None)
