"""Reasoning: the pieces of each generation that are reasoning, and those that are the answer."""

from __future__ import annotations

from typing import NamedTuple

Pieces = list[str]

# Tokens with which the prompt of a second run contains the reasoning.
_TAG_TOKENS = 2


class Times(NamedTuple):
    """Readings of `time.monotonic_ns`.

    They are those of the arrival of the request, of the end of the wait for the model, and of the
    begin and the first token of the run whose tokens are counted.
    """

    received: int
    started: int
    run_started: int
    first_token: int


class Output(NamedTuple):
    """The pieces of a generation, each one token.

    `first_run` is the number of those that the runtime does not count, because it has begun again
    to constrain the answer.
    """

    reasoning: Pieces
    answer: Pieces
    is_cut: bool = False
    first_run: int = 0

    @property
    def added_to_prompt(self) -> int:
        return self.first_run and self.first_run + _TAG_TOKENS

    @property
    def counted(self) -> int:
        """The number of tokens that the runtime reports."""
        return len(self.reasoning) + len(self.answer) - self.first_run


def output_of(
    reasoning: Pieces, answer: Pieces, limit: int | None, *, has_format: bool, is_chat: bool
) -> Output:
    """Return the output of a model that reasons before it answers.

    /api/generate constrains all of it to the format, and the constrained text is the reasoning.
    /api/chat lets the model reason, and then runs it again to constrain the answer.
    """
    if has_format and not is_chat:
        return plain_output([], answer, limit)._replace(reasoning=answer[:limit], answer=[])
    if not (has_format and reasoning and (limit is None or len(reasoning) < limit)):
        return plain_output(reasoning, answer, limit)
    second = plain_output([], answer, limit)
    return second._replace(reasoning=reasoning, first_run=len(reasoning))


def plain_output(reasoning: Pieces, answer: Pieces, limit: int | None) -> Output:
    """Return the output of a single run, with at most `limit` tokens."""
    tokens = len(reasoning) + len(answer)
    left = None if limit is None else max(0, limit - len(reasoning))
    is_cut = limit is not None and tokens >= limit
    return Output(reasoning[:limit], answer[:left], is_cut)
