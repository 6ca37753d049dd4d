"""Probabilities of tokens in the form of OpenAI's completions: one list for each property."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import NamedTuple

from marshmallow import fields

from mes.api.response_fields import ResponseSchema, field, integers, strings
from mes.domain import Logprob


class TextTokens(NamedTuple):
    """A text with its tokens; `start` is where it begins in the whole answer, in characters."""

    text: str
    logprobs: Sequence[Logprob]
    start: int = 0


class CompletionLogprobs(ResponseSchema):
    """Probabilities of tokens, as lists. The source is a `TextTokens`."""

    tokens = strings(
        "Texts of the tokens; for a part of a letter, `bytes:` with its bytes.",
        source=lambda part: [_token_text(each) for each in part.logprobs],
    )
    token_logprobs = field(
        fields.List,
        "Natural logarithms of the tokens' probabilities.",
        fields.Float(),
        source=lambda part: [each.logprob for each in part.logprobs],
    )
    top_logprobs = field(
        fields.List,
        "The likeliest tokens at each place, and the token itself, with the logarithms of their "
        "probabilities.",
        fields.Dict(),
        source=lambda part: [_top_logprobs(each) for each in part.logprobs],
    )
    text_offset = integers(
        "Where each token begins in the whole answer, in characters.",
        source=lambda part: _offsets(part),
    )


def _token_text(token: Logprob) -> str:
    try:
        bytes(token.bytes).decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)
    return token.token


def _top_logprobs(token: Logprob) -> dict[str, float]:
    # The reverse order, so that the likelier one of two tokens with the same text remains.
    likeliest = reversed((*token.top_logprobs, token))
    return {_token_text(each): each.logprob for each in likeliest}


def _offsets(part: TextTokens) -> list[int]:
    """Return the offsets of the tokens; that of a part of a letter is where its letter begins.

    The tokens may have more text than the answer: whitespace before it, or a stop after it.
    """
    decoder, begins, text = getincrementaldecoder("utf-8")("replace"), [], ""
    for each in part.logprobs:
        begins.append(len(text))
        text += decoder.decode(bytes(each.bytes))
    removed = max(0, text.find(part.text))
    return [part.start + max(0, begin - removed) for begin in begins]
