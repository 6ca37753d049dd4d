"""Generation: one request to a model, its answer as Ollama's lines."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from . import clock, schema
from .caller import Caller
from .engine import Engine
from .errors import BadRequest, EngineDied
from .pool import Pool
from .requests import Generation
from .store import Model

Line = dict[str, Any]
Lines = Generator[Line, None, None]
# The engine calls a full context `limit` too.
DONE_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


def check(request: Generation, model: Model) -> None:
    """BadRequest for a model that only embeds; it can be unloaded all the same"""
    if request.is_unload:
        return
    if model.header.is_embedding:
        task = "chat" if request.is_chat else "generate"
        raise BadRequest(f'"{request.model}" does not support {task}')


def load_or_unload(request: Generation, model: Model, pool: Pool, caller: Caller) -> Line:
    """The answer to a request without a prompt: its keep_alive says which of the two it means"""
    if request.is_unload:
        pool.unload(model)
        return _line(request, "", done=True, done_reason="unload")
    with pool.engine(model, request.options, request.keep_alive, caller):
        return _line(request, "", done=True, done_reason="load")


def lines(request: Generation, model: Model, pool: Pool, caller: Caller) -> Lines:
    """Pieces of text as they come, then the one with `done: true` and the engine's own counts.

    An over-long prompt is always refused: nothing is cut away in silence.
    """
    started = time.perf_counter_ns()
    with (
        pool.engine(model, request.options, request.keep_alive, caller) as engine,
        engine.slots.one(caller),
    ):
        loaded = clock.since(started)
        body = _engine_request(request, engine, caller)
        with closing(engine.stream("/completion", body, caller)) as events:
            for event in events:
                if event["content"]:
                    yield _line(request, event["content"], done=False, **_logprobs(request, event))
                if event["stop"]:
                    yield _line(request, "", done=True, **_metrics(event, started, loaded))
                    return
        raise EngineDied(engine.last_words())


def folded(lines: Iterator[Line]) -> Line:
    """The lines of a stream as the one object of `stream: false`"""
    texts, logprobs = [], []
    for line in lines:
        texts.append(_text_of(line))
        logprobs += line.get("logprobs", [])
    whole = _with_text(line, "".join(texts))
    return {**whole, "logprobs": logprobs} if logprobs else whole


def _engine_request(request: Generation, engine: Engine, caller: Caller) -> dict[str, Any]:
    body = {**request.options.sampling, "prompt": _prompt(request, engine, caller)}
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)  # with 0 the engine tells nothing at all
    if request.format is not None:
        body["grammar"] = schema.grammar(request.format, engine, caller)
    # Progress reports give the engine something to write while it reads the prompt, and so the
    # chance to notice that nobody is there any more.
    return {**body, "return_progress": True}


def _prompt(request: Generation, engine: Engine, caller: Caller) -> str:
    if request.prompt is not None:
        return request.prompt
    # A model that could think aloud would do so inside the answer.
    arguments = {"chat_template_kwargs": {"enable_thinking": False}}
    body = {"messages": request.messages, **arguments}
    return str(engine.ask("/apply-template", body, caller)["prompt"])


def _line(request: Generation, text: str, **rest: Any) -> Line:
    head = {"model": request.model, "created_at": clock.now()}
    if request.is_chat:
        return {**head, "message": {"role": "assistant", "content": text}, **rest}
    return {**head, "response": text, **rest}


def _logprobs(request: Generation, event: dict[str, Any]) -> dict[str, Any]:
    if request.top_logprobs is None:
        return {}
    tokens = event.get("completion_probabilities", [])
    return {"logprobs": [_logprob(token, request.top_logprobs) for token in tokens]}


def _logprob(token: dict[str, Any], most: int) -> dict[str, Any]:
    told = {name: token[name] for name in ("token", "logprob", "bytes")}
    likeliest = [_logprob(each, 0) for each in token.get("top_logprobs", [])[:most]]
    return {**told, "top_logprobs": likeliest} if likeliest else told


def _text_of(line: Line) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])


def _with_text(line: Line, text: str) -> Line:
    if "message" in line:
        return {**line, "message": {**line["message"], "content": text}}
    return {**line, "response": text}


def _metrics(event: dict[str, Any], started: int, loaded: int) -> dict[str, Any]:
    timings = event["timings"]
    return {
        "done_reason": DONE_REASONS.get(event["stop_type"], "stop"),
        "total_duration": clock.since(started),
        "load_duration": loaded,
        "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
        "prompt_eval_duration": round(timings["prompt_ms"] * 1e6),
        "eval_count": timings["predicted_n"],
        "eval_duration": round(timings["predicted_ms"] * 1e6),
    }
