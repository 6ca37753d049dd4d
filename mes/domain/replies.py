"""Replies: what the runtime has made of a question."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from mes.domain.requests import ToolCall


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


@dataclass(frozen=True, slots=True)
class Vectors:
    """What texts became: a vector for each, in their order, in the runtime's own numbers."""

    each: tuple[array[float], ...]
    prompt_tokens: int


def total(usages: Iterable[Usage]) -> Usage:
    """What was used altogether."""
    counts = [(each.prompt_tokens, each.completion_tokens) for each in usages]
    return Usage(*map(sum, zip(*counts, strict=True)))


def milliseconds(seconds: float) -> int:
    """As answers tell durations."""
    return round(seconds * 1000)


def rate(tokens: int, milliseconds: float) -> float | None:
    """Tokens per second; None where no time was measured."""
    return round(tokens / milliseconds * 1000, 1) if milliseconds else None
