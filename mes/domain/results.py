"""What a runtime replies, and the result of an inference made of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mes.domain.inference_request import ToolCall

# Replies: what the runtime has made of a question.


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the runtime counted them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Logprob:
    """How probable a token was: the natural logarithm. `top_logprobs` are the likeliest there."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished generation; times in milliseconds, as the runtime measured them.

    `reasoning` is what a reasoning model thought before it answered; `text` has none of it, and
    `logprobs` are those of the text.
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
    """What texts became: a vector for each, in their order, in the runtime's own numbers."""

    each: tuple[array[float], ...]
    prompt_tokens: int


def total_usage(usages: Iterable[Usage]) -> Usage:
    """What was used altogether."""
    counts = [(each.prompt_tokens, each.completion_tokens) for each in usages]
    return Usage(*map(sum, zip(*counts, strict=True)))


def milliseconds(seconds: float) -> int:
    """As answers tell durations."""
    return round(seconds * 1000)


def tokens_per_second(tokens: int, milliseconds: float) -> float | None:
    """Tokens per second; None where no time was measured."""
    return round(tokens / milliseconds * 1000, 1) if milliseconds else None


# An inference: all that came about on the way to an answer.


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went; milliseconds."""

    queue_ms: int
    load_ms: int
    prompt_ms: int
    generation_ms: int
    time_to_first_token_ms: int
    tokens_per_second: float | None
    cold_start: bool


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which an answer breaks its schema."""

    pointer: str
    keyword: str
    detail: str


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What came of an answer that had to fit a schema; `parsed` counts where it is valid.

    `extraction` tells where the JSON stood: the `whole` answer, a `fence` in it, or its `prose`.
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
    """One time the model was asked: how, what it said, and what came of it.

    Without a schema the mode is `free` and there is no judgement but those of the calls, in their
    order; without a reply the attempt was broken off.
    """

    mode: str
    options: Mapping[str, Any]
    reply: Reply | None
    validation: ValidationResult | None
    seconds: float
    of_calls: tuple[ValidationResult, ...] = ()

    @property
    def verdict(self) -> str | None:
        return None if self.validation is None else self.validation.verdict


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run needs to be repeated, beside the options of its answer."""

    model_digest: str | None
    quantization: str | None
    runtime: str | None
    schema_sha256: str | None
    mes_version: str


@dataclass(frozen=True, slots=True)
class KeywordSupport:
    """A schema's keywords: those that the runtime enforces while it writes, and the others."""

    enforced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """One answered inference: how it came about, and what became of its schema."""

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
        return total_usage([each.reply.usage for each in self.attempts if each.reply is not None])

    @property
    def validation(self) -> ValidationResult | None:
        return self.final.validation

    @property
    def failure(self) -> ValidationResult | None:
        """What is wrong with the answer, or with the first call that does not fit its tool."""
        judged = (self.validation, *self.final.of_calls)
        return next((each for each in judged if each is not None and not each.valid), None)


def final_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt whose answer counts: the last one that has a reply."""
    return next(each for each in reversed(attempts) if each.reply is not None)
