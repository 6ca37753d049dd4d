"""Embeddings: the requests to /api/embed, and the reading of their responses."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mes.domain import KEEP_ALIVE_SECONDS, ModelSpec, Vectors
from mes.domain.capabilities import EMBEDDING, not_capable
from mes.errors import (
    GenerationAborted,
    MesError,
    Mistake,
    RequestInvalid,
    RuntimeReplyInvalid,
)
from mes.ollama import error_responses, responses
from mes.ollama.progress import load_milliseconds

# The vectors of this many texts fit into one response, for all models in use.
_BATCH_SIZE = 64
_MAX_FLOAT32 = 3.4e38

_INPUT = "/input"
_REMEDY = "shorten it"

# Error texts of Ollama and of its runner.
_TOO_LONG = ("exceeds the context length", "maximum context length")
_LARGER_THAN_BATCH = re.compile(r"input \((\d+) tokens\) is too large.*batch size: (\d+)")


def embedding_payload(
    spec: ModelSpec, texts: Sequence[str], dimensions: int | None = None
) -> dict[str, Any]:
    """Return the body for /api/embed."""
    payload = {
        "model": spec.tag,
        "input": texts,
        "options": spec.load_options,
        "truncate": False,
    }
    return payload if dimensions is None else {**payload, "dimensions": dimensions}


def load_payload(spec: ModelSpec) -> dict[str, Any]:
    """Return the body for /api/embed that loads a model which generates no text."""
    return {**embedding_payload(spec, ()), "keep_alive": KEEP_ALIVE_SECONDS}


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Consecutive texts of a request; `first` is the index of the first one."""

    first: int
    texts: Sequence[str]


def split_into_batches(texts: Sequence[str]) -> Iterator[EmbeddingBatch]:
    starts = range(0, len(texts), _BATCH_SIZE)
    return (EmbeddingBatch(first, texts[first : first + _BATCH_SIZE]) for first in starts)


def check_loaded(body: Iterable[bytes]) -> None:
    """Read the response to a request without texts; raise an error if it is not the expected one.

    Raises GenerationAborted and RuntimeReplyInvalid.
    """
    parse_vectors(b"".join(body), number=0)


def parse_vectors(body: bytes, *, number: int) -> Vectors:
    """Return the `number` vectors of a response. Raises RuntimeReplyInvalid."""
    part = next(responses.parse_lines([body], error_class=GenerationAborted), {})
    listed = part.get("embeddings")
    if type(listed) is not list or len(listed) != number:
        raise RuntimeReplyInvalid("the runtime sent other embeddings than it was asked for")
    return Vectors(
        tuple(map(_vector, listed)),
        responses.require_count(part, "prompt_eval_count"),
        load_milliseconds(part),
    )


def _vector(listed: Any) -> array[float]:
    numbers = listed if type(listed) is list else []
    is_numeric = bool(numbers) and set(map(type, numbers)) <= {float, int}
    if not is_numeric or max(map(abs, numbers)) > _MAX_FLOAT32:
        raise RuntimeReplyInvalid("the runtime sent an embedding that is not a list of numbers")
    return array("d", numbers)


def join_batches(batches: Iterable[Vectors]) -> Vectors:
    """Return the vectors of all batches. Raises RuntimeReplyInvalid if their lengths differ."""
    batches = list(batches)
    vectors = tuple(chain.from_iterable(batch.values for batch in batches))
    if len(set(map(len, vectors))) != 1:
        raise RuntimeReplyInvalid("the runtime sent embeddings of several lengths")
    prompt_tokens = sum(batch.prompt_tokens for batch in batches)
    return Vectors(vectors, prompt_tokens, sum(batch.load_ms for batch in batches))


def check_dimensions(vectors: Vectors, *, tag: str, dimensions: int | None) -> None:
    """Raise RequestInvalid if the vectors do not have the requested number of dimensions."""
    actual = len(vectors.values[0])
    if dimensions is None or actual == dimensions:
        return
    detail = f"{tag} makes vectors of {actual} dimensions; ask for no more than that"
    if actual > dimensions:
        detail = "the runtime cannot shorten vectors; leave dimensions out"
    raise RequestInvalid(detail, mistakes=(Mistake("/dimensions", detail),))


def embedding_error_from(
    refusal: error_responses.ErrorResponse,
    batch: EmbeddingBatch,
    *,
    tag: str,
    context_length: Callable[[], int | None],
) -> MesError:
    """Return the error of a refused batch.

    `context_length` returns the model's; it is called if the refusal has no numbers.
    """
    if found := _LARGER_THAN_BATCH.search(refusal.text):
        problem = f"an input is too long: it has {found[1]} tokens, but"
        return error_responses.too_long(problem, int(found[2]), _REMEDY, pointer=_INPUT)
    if any(words in refusal.text for words in _TOO_LONG):
        return _too_long_by_facts(refusal.facts, batch) or _too_long(context_length(), batch)
    if refusal.status == 501 or "does not support embeddings" in refusal.text:
        return not_capable(EMBEDDING, tag, pointer="/model")
    if refusal.status == 500 and refusal.text:
        return GenerationAborted(refusal.text)
    return error_responses.error_from(refusal, tag=tag)


def _too_long_by_facts(facts: Mapping[str, Any], batch: EmbeddingBatch) -> MesError | None:
    """Return the error with the input's number of tokens, which only the embedded runtime sends."""
    index, tokens, context = (facts.get(name) for name in ("input", "n_prompt_tokens", "n_ctx"))
    if type(index) is not int or not tokens or not context:
        return None
    problem = f"input {batch.first + index} is too long: it has {tokens} tokens, but"
    return error_responses.too_long(problem, context, _REMEDY, pointer=_INPUT)


def _too_long(context: int | None, batch: EmbeddingBatch) -> MesError:
    longest = max(range(len(batch.texts)), key=lambda index: len(batch.texts[index]))
    size = f"has {len(batch.texts[longest])} characters"
    rest = f"the longest, input {batch.first + longest}, {size}; {_REMEDY}"
    return error_responses.too_long("an input is too long:", context, rest, pointer=_INPUT)
