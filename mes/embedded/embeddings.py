"""Embeddings: texts to unit vectors, cut to the model's context as Ollama cuts them."""

from __future__ import annotations

import math
import time
from typing import Any

from mes.embedded import durations
from mes.embedded.api_errors import BadRequest, RuntimeFailure
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import StoredModel
from mes.embedded.request_parsing import EmbedRequest

# Texts of one call to the engine. A call cannot be cancelled, only the calls after it.
TEXTS_PER_CALL = 8
Vector = list[float]


class NotAnEmbeddingModel(RuntimeFailure):
    status = 501


def check_embedding_model(model: StoredModel) -> None:
    """Raise `NotAnEmbeddingModel` if `model` generates text."""
    if not model.header.is_embedding:
        raise NotAnEmbeddingModel(
            "This server does not support embeddings. Start it with `--embeddings`"
        )


def embed_texts(
    request: EmbedRequest, model: StoredModel, pool: ModelPool, client: ClientConnection
) -> dict[str, Any]:
    """Return the answer of /api/embed; a request without inputs only loads the model.

    Raise `BadRequest` for a text that exceeds the context and must not be truncated.
    """
    started = time.perf_counter_ns()
    with pool.engine(model, request.options, request.keep_alive, client) as engine:
        load_duration = durations.nanoseconds_since(started)
        if not request.inputs:
            return {"model": request.model, "embeddings": []}
        tokens = [_tokenize(index, request, engine, client) for index in range(len(request.inputs))]
        vectors = _vectors(tokens, engine, client)
    return {
        "model": request.model,
        "embeddings": [_shorten(vector, request.dimensions) for vector in vectors],
        "total_duration": durations.nanoseconds_since(started),
        "load_duration": load_duration,
        "prompt_eval_count": sum(map(len, tokens)),
    }


def _tokenize(
    index: int, request: EmbedRequest, engine: Engine, client: ClientConnection
) -> list[int]:
    limit = engine.launch.context_length
    body = {"content": request.inputs[index], "add_special": True}
    tokens: list[int] = engine.request("/tokenize", body, client)["tokens"]
    if len(tokens) <= limit:
        return tokens
    if not request.truncate:
        raise BadRequest(
            "the input length exceeds the context length",
            input=index,
            n_prompt_tokens=len(tokens),
            n_ctx=limit,
        )
    # The last token marks the end of the text.
    return [*tokens[: limit - 1], tokens[-1]]


def _vectors(tokens: list[list[int]], engine: Engine, client: ClientConnection) -> list[Vector]:
    vectors: list[Vector] = []
    for start in range(0, len(tokens), TEXTS_PER_CALL):
        body = {"input": tokens[start : start + TEXTS_PER_CALL]}
        answer = engine.request("/v1/embeddings", body, client)
        ordered = sorted(answer["data"], key=lambda item: item["index"])
        vectors += [item["embedding"] for item in ordered]
    return vectors


def _shorten(vector: Vector, dimensions: int | None) -> Vector:
    if not dimensions or dimensions >= len(vector):
        return vector
    head = vector[:dimensions]
    norm = math.hypot(*head) or 1.0
    return [value / norm for value in head]
