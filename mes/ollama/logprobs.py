"""Probabilities of tokens: read from the lines of a response, and assigned to pieces of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mes.domain import Logprob
from mes.errors import RuntimeReplyInvalid
from mes.ollama.responses import get_field, require_objects

Part = Mapping[str, Any]


def parse_logprobs(part: Part) -> Iterator[Logprob]:
    """Yield the probabilities of the tokens of a line. Raises RuntimeReplyInvalid."""
    for each in require_objects(part, "logprobs"):
        chosen = _parse_logprob(each)
        likeliest = tuple(map(_parse_logprob, require_objects(each, "top_logprobs")))
        if likeliest:
            chosen = replace(chosen, top_logprobs=_with_chosen(likeliest, chosen))
        yield chosen


def _parse_logprob(part: Part) -> Logprob:
    listed = get_field(part, "bytes", list, [])
    try:
        values = tuple(bytes(listed))
    except (TypeError, ValueError) as exc:
        raise RuntimeReplyInvalid("the runtime sent bytes of a token that are not bytes") from exc
    return Logprob(get_field(part, "token", str, ""), _require_number(part, "logprob"), values)


def _with_chosen(likeliest: tuple[Logprob, ...], chosen: Logprob) -> tuple[Logprob, ...]:
    """Return the likeliest tokens with the chosen one among them.

    The runtime reports the last token of a letter, or of text that it has held back, with all of
    that text, but among the likeliest with its own part.
    """
    for index, each in enumerate(likeliest):
        is_part = each.bytes == chosen.bytes[-len(each.bytes) :] or not chosen.bytes
        if each.logprob == chosen.logprob and is_part:
            return (*likeliest[:index], chosen, *likeliest[index + 1 :])
    return (*likeliest, chosen)


def _require_number(part: Part, name: str) -> float:
    value: Any = part.get(name)
    # Go encodes 0.0 as 0.
    if type(value) not in (int, float):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a number")
    return float(value)


def logprobs_of(text: str, logprobs: Sequence[Logprob]) -> Sequence[Logprob]:
    """Return the last probabilities, as many as the text has; those before are of removed text."""
    missing = len(text.encode())
    for index in range(len(logprobs) - 1, -1, -1):
        if missing <= 0 and logprobs[index].bytes:
            return logprobs[index + 1 :]
        missing -= len(logprobs[index].bytes)
    return logprobs
