"""Embeddings: texts to vectors, cut to the model's context as Ollama cuts them."""

from __future__ import annotations

import math
import time
from typing import Any

from . import clock
from .caller import Caller
from .engine import Engine
from .errors import BadRequest, RuntimeFailure
from .pool import Pool
from .requests import Embedding
from .store import Model

# The engine notices between two calls, not within one, that nobody waits any more.
TEXTS_AT_ONCE = 8
Vector = list[float]


class NotAnEmbeddingModel(RuntimeFailure):
    status = 501


def check(model: Model) -> None:
    if not model.header.is_embedding:
        raise NotAnEmbeddingModel(
            "This server does not support embeddings. Start it with `--embeddings`"
        )


def embed(request: Embedding, model: Model, pool: Pool, caller: Caller) -> dict[str, Any]:
    """The answer of /api/embed; with no inputs it only loads the model"""
    started = time.perf_counter_ns()
    with pool.engine(model, request.options, request.keep_alive, caller) as engine:
        loaded = clock.since(started)
        if not request.inputs:
            return {"model": request.model, "embeddings": []}
        limit = engine.launch.context_length
        tokens = [
            _tokens(index, limit, request, engine, caller) for index in range(len(request.inputs))
        ]
        vectors = _vectors(tokens, engine, caller)
    return {
        "model": request.model,
        "embeddings": [_shortened(vector, request.dimensions) for vector in vectors],
        "total_duration": clock.since(started),
        "load_duration": loaded,
        "prompt_eval_count": sum(map(len, tokens)),
    }


def _tokens(
    index: int, limit: int, request: Embedding, engine: Engine, caller: Caller
) -> list[int]:
    body = {"content": request.inputs[index], "add_special": True}
    tokens: list[int] = engine.ask("/tokenize", body, caller)["tokens"]
    if len(tokens) <= limit:
        return tokens
    if not request.truncate:
        raise BadRequest(
            "the input length exceeds the context length",
            input=index,
            n_prompt_tokens=len(tokens),
            n_ctx=limit,
        )
    # The last one marks the end of the text.
    return [*tokens[: limit - 1], tokens[-1]]


def _vectors(tokens: list[list[int]], engine: Engine, caller: Caller) -> list[Vector]:
    vectors: list[Vector] = []
    for start in range(0, len(tokens), TEXTS_AT_ONCE):
        body = {"input": tokens[start : start + TEXTS_AT_ONCE]}
        answer = engine.ask("/v1/embeddings", body, caller)
        ordered = sorted(answer["data"], key=lambda item: item["index"])
        vectors += [item["embedding"] for item in ordered]
    return vectors


def _shortened(vector: Vector, dimensions: int | None) -> Vector:
    if not dimensions or dimensions >= len(vector):
        return vector
    head = vector[:dimensions]
    norm = math.hypot(*head) or 1.0
    return [value / norm for value in head]
