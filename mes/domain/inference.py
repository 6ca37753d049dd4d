"""An inference: all that came about on the way to an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mes.domain.replies import Reply, Usage, total


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
class Judgement:
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
    judgement: Judgement | None
    seconds: float
    of_calls: tuple[Judgement, ...] = ()

    @property
    def verdict(self) -> str | None:
        return None if self.judgement is None else self.judgement.verdict


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run needs to be repeated, beside the options of its answer."""

    model_digest: str | None
    quantization: str | None
    runtime: str | None
    schema_sha256: str | None
    mes_version: str


@dataclass(frozen=True, slots=True)
class Keywords:
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
    keywords: Keywords

    @property
    def final(self) -> Attempt:
        return final(self.attempts)

    @property
    def reply(self) -> Reply:
        assert self.final.reply is not None
        return self.final.reply

    @property
    def usage(self) -> Usage:
        """The tokens of all attempts together."""
        return total([each.reply.usage for each in self.attempts if each.reply is not None])

    @property
    def judgement(self) -> Judgement | None:
        return self.final.judgement

    @property
    def failure(self) -> Judgement | None:
        """What is wrong with the answer, or with the first call that does not fit its tool."""
        judged = (self.judgement, *self.final.of_calls)
        return next((each for each in judged if each is not None and not each.valid), None)


def final(attempts: Sequence[Attempt]) -> Attempt:
    """The attempt whose answer counts: the last one that has a reply."""
    return next(each for each in reversed(attempts) if each.reply is not None)
