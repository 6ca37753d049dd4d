"""Embeddings at the wire: what the runtime's answers mean."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mes.domain import Vectors
from mes.domain.capabilities import EMBEDDING, not_capable
from mes.errors import (
    GenerationAborted,
    MesError,
    Mistake,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
)
from mes.ollama import responses

# So many vectors, of any length that is in use, are no more than one answer may hold.
_TEXTS_AT_ONCE = 64
_LARGEST_FLOAT32 = 3.4e38

_TOO_LONG = ("exceeds the context length", "maximum context length")
_LARGER_THAN_A_BATCH = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Some of the texts, and the place of the first among all."""

    first: int
    texts: Sequence[str]


def split_into_batches(texts: Sequence[str]) -> Iterator[EmbeddingBatch]:
    """The texts, some at a time."""
    starts = range(0, len(texts), _TEXTS_AT_ONCE)
    return (EmbeddingBatch(first, texts[first : first + _TEXTS_AT_ONCE]) for first in starts)


def check_loaded(chunks: Iterable[bytes]) -> None:
    """The answer where no text was sent, once the model is in memory."""
    parse_vectors(b"".join(chunks), number=0)


def parse_vectors(answer: bytes, *, number: int) -> Vectors:
    """So many vectors. Raises RuntimeReplyInvalid."""
    part = next(responses.parse_parts([answer], otherwise=GenerationAborted), {})
    listed = part.get("embeddings")
    if type(listed) is not list or len(listed) != number:
        raise RuntimeReplyInvalid("the runtime sent other embeddings than it was asked for")
    return Vectors(tuple(map(_vector, listed)), responses.require_count(part, "prompt_eval_count"))


def _vector(listed: Any) -> array[float]:
    numbers = listed if type(listed) is list else []
    sound = bool(numbers) and set(map(type, numbers)) <= {float, int}
    if not sound or max(map(abs, numbers)) > _LARGEST_FLOAT32:
        raise RuntimeReplyInvalid("the runtime sent an embedding that is not a list of numbers")
    return array("d", numbers)


def join_batches(parts: Iterable[Vectors]) -> Vectors:
    """The vectors of all batches, all of one length. Raises RuntimeReplyInvalid."""
    parts = list(parts)
    each = tuple(chain.from_iterable(part.values for part in parts))
    if len(set(map(len, each))) != 1:
        raise RuntimeReplyInvalid("the runtime sent embeddings of several lengths")
    return Vectors(each, sum(part.prompt_tokens for part in parts))


def check_length(made: Vectors, *, tag: str, dimensions: int | None) -> None:
    """Raises RequestInvalid where the vectors do not have the dimensions that were asked for."""
    has = len(made.values[0])
    if dimensions is None or has == dimensions:
        return
    detail = f"{tag} makes vectors of {has} dimensions; ask for no more than that"
    if has > dimensions:
        detail = "the runtime cannot shorten vectors; leave dimensions out"
    raise RequestInvalid(detail, mistakes=(Mistake("/dimensions", detail),))


def embedding_error_from(
    no: responses.ErrorResponse,
    batch: EmbeddingBatch,
    *,
    tag: str,
    context_length: Callable[[], int | None],
) -> MesError:
    """An answer other than 200; `context_length` is asked where the runtime gives no numbers."""
    if found := _LARGER_THAN_A_BATCH.search(no.text):
        return PromptTooLong(f"an input has {found[1]} tokens, the model takes {found[2]}")
    if any(words in no.text for words in _TOO_LONG):
        return _with_numbers(no.facts, batch) or _without_numbers(context_length(), batch)
    if no.status == 501 or "does not support embeddings" in no.text:
        return not_capable(EMBEDDING, tag, pointer="/model")
    if no.status == 500 and no.text:
        return GenerationAborted(no.text)
    return responses.error_from(no, tag=tag)


def _with_numbers(facts: Mapping[str, Any], batch: EmbeddingBatch) -> MesError | None:
    """Our own embedded runtime says which input has how many tokens; Ollama does not."""
    index, tokens, context = (facts.get(each) for each in ("input", "n_prompt_tokens", "n_ctx"))
    if type(index) is not int or not tokens or not context:
        return None
    return PromptTooLong(
        f"input {batch.first + index} has {tokens} tokens, the model's context holds {context}"
    )


def _without_numbers(context: int | None, batch: EmbeddingBatch) -> MesError:
    longest = max(range(len(batch.texts)), key=lambda index: len(batch.texts[index]))
    window = "" if context is None else f" of {context} tokens"
    return PromptTooLong(
        f"an input does not fit the model's context{window}; the longest, "
        f"input {batch.first + longest}, has {len(batch.texts[longest])} characters"
    )
