"""Generations and embeddings, asked of an engine and answered in Ollama's form."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from mes.embedded import durations, grammar
from mes.embedded.api_errors import BadRequest, EngineDied, RuntimeFailure
from mes.embedded.engine import Engine
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import StoredModel
from mes.embedded.request_parsing import EmbedRequest, GenerateRequest
from mes.embedded.slots import ClientConnection

# Generation: one request to a model, its answer as Ollama's lines.

ResponseLine = dict[str, Any]
ResponseLines = Generator[ResponseLine, None, None]
# The engine calls a full context `limit` too.
DONE_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


def check_generation_model(request: GenerateRequest, model: StoredModel) -> None:
    """BadRequest for a model that only embeds; it can be unloaded all the same"""
    if request.is_unload:
        return
    if model.header.is_embedding:
        task = "chat" if request.is_chat else "generate"
        raise BadRequest(f'"{request.model}" does not support {task}')


def load_or_unload(
    request: GenerateRequest, model: StoredModel, pool: ModelPool, caller: ClientConnection
) -> ResponseLine:
    """The answer to a request without a prompt: its keep_alive says which of the two it means"""
    if request.is_unload:
        pool.unload(model)
        return _response_line(request, "", done=True, done_reason="unload")
    with pool.engine(model, request.options, request.keep_alive, caller):
        return _response_line(request, "", done=True, done_reason="load")


def generation_lines(
    request: GenerateRequest, model: StoredModel, pool: ModelPool, caller: ClientConnection
) -> ResponseLines:
    """Pieces of text as they come, then the one with `done: true` and the engine's own counts.

    An over-long prompt is always refused: nothing is cut away in silence.
    """
    started = time.perf_counter_ns()
    with (
        pool.engine(model, request.options, request.keep_alive, caller) as engine,
        engine.slots.one(caller),
    ):
        loaded = durations.nanoseconds_since(started)
        body = _engine_request(request, engine, caller)
        with closing(engine.stream("/completion", body, caller)) as events:
            for event in events:
                if event["content"]:
                    yield _response_line(
                        request, event["content"], done=False, **_logprobs(request, event)
                    )
                if event["stop"]:
                    yield _response_line(request, "", done=True, **_metrics(event, started, loaded))
                    return
        raise EngineDied(engine.last_words())


def fold_lines(lines: Iterator[ResponseLine]) -> ResponseLine:
    """The lines of a stream as the one object of `stream: false`"""
    texts, logprobs = [], []
    for line in lines:
        texts.append(_text_of(line))
        logprobs += line.get("logprobs", [])
    whole = _with_text(line, "".join(texts))
    return {**whole, "logprobs": logprobs} if logprobs else whole


def _engine_request(
    request: GenerateRequest, engine: Engine, caller: ClientConnection
) -> dict[str, Any]:
    body = {**request.options.sampling, "prompt": _prompt(request, engine, caller)}
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)  # with 0 the engine tells nothing at all
    if request.format is not None:
        body["grammar"] = grammar.grammar_for(request.format, engine, caller)
    # Progress reports give the engine something to write while it reads the prompt, and so the
    # chance to notice that nobody is there any more.
    return {**body, "return_progress": True}


def _prompt(request: GenerateRequest, engine: Engine, caller: ClientConnection) -> str:
    if request.prompt is not None:
        return request.prompt
    # A model that could think aloud would do so inside the answer.
    arguments = {"chat_template_kwargs": {"enable_thinking": False}}
    body = {"messages": request.messages, **arguments}
    return str(engine.ask("/apply-template", body, caller)["prompt"])


def _response_line(request: GenerateRequest, text: str, **rest: Any) -> ResponseLine:
    head = {"model": request.model, "created_at": durations.now()}
    if request.is_chat:
        return {**head, "message": {"role": "assistant", "content": text}, **rest}
    return {**head, "response": text, **rest}


def _logprobs(request: GenerateRequest, event: dict[str, Any]) -> dict[str, Any]:
    if request.top_logprobs is None:
        return {}
    tokens = event.get("completion_probabilities", [])
    return {"logprobs": [_logprob(token, request.top_logprobs) for token in tokens]}


def _logprob(token: dict[str, Any], most: int) -> dict[str, Any]:
    told = {name: token[name] for name in ("token", "logprob", "bytes")}
    likeliest = [_logprob(each, 0) for each in token.get("top_logprobs", [])[:most]]
    return {**told, "top_logprobs": likeliest} if likeliest else told


def _text_of(line: ResponseLine) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])


def _with_text(line: ResponseLine, text: str) -> ResponseLine:
    if "message" in line:
        return {**line, "message": {**line["message"], "content": text}}
    return {**line, "response": text}


def _metrics(event: dict[str, Any], started: int, loaded: int) -> dict[str, Any]:
    timings = event["timings"]
    return {
        "done_reason": DONE_REASONS.get(event["stop_type"], "stop"),
        "total_duration": durations.nanoseconds_since(started),
        "load_duration": loaded,
        "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
        "prompt_eval_duration": round(timings["prompt_ms"] * 1e6),
        "eval_count": timings["predicted_n"],
        "eval_duration": round(timings["predicted_ms"] * 1e6),
    }


# Embeddings: texts to vectors, cut to the model's context as Ollama cuts them.

# The engine notices between two calls, not within one, that nobody waits any more.
TEXTS_AT_ONCE = 8
Vector = list[float]


class NotAnEmbeddingModel(RuntimeFailure):
    status = 501


def check_embedding_model(model: StoredModel) -> None:
    if not model.header.is_embedding:
        raise NotAnEmbeddingModel(
            "This server does not support embeddings. Start it with `--embeddings`"
        )


def embed_texts(
    request: EmbedRequest, model: StoredModel, pool: ModelPool, caller: ClientConnection
) -> dict[str, Any]:
    """The answer of /api/embed; with no inputs it only loads the model"""
    started = time.perf_counter_ns()
    with pool.engine(model, request.options, request.keep_alive, caller) as engine:
        loaded = durations.nanoseconds_since(started)
        if not request.inputs:
            return {"model": request.model, "embeddings": []}
        limit = engine.launch.context_length
        tokens = [
            _tokenize(index, limit, request, engine, caller) for index in range(len(request.inputs))
        ]
        vectors = _vectors(tokens, engine, caller)
    return {
        "model": request.model,
        "embeddings": [_shortened(vector, request.dimensions) for vector in vectors],
        "total_duration": durations.nanoseconds_since(started),
        "load_duration": loaded,
        "prompt_eval_count": sum(map(len, tokens)),
    }


def _tokenize(
    index: int, limit: int, request: EmbedRequest, engine: Engine, caller: ClientConnection
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


def _vectors(tokens: list[list[int]], engine: Engine, caller: ClientConnection) -> list[Vector]:
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
