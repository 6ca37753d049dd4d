"""Text generation: one request to an engine, its answer as lines of Ollama's API."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from mes.embedded import durations, grammar
from mes.embedded.api_errors import BadRequest, EngineStopped, RuntimeFailure
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.engine_limits import EngineStalled, SilenceLimit, finish_without_client
from mes.embedded.logprobs import TokenReports
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import StoredModel
from mes.embedded.request_parsing import GenerateRequest

ResponseLine = dict[str, Any]
ResponseLines = Generator[ResponseLine, None, None]
# The engine reports a full context as `limit` too.
DONE_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


class TemplateTooSlow(RuntimeFailure):
    """The chat template of the model does not end in time."""


def check_generation_model(request: GenerateRequest, model: StoredModel) -> None:
    """Raise `BadRequest` if `model` only embeds, unless the request unloads it."""
    if request.is_unload:
        return
    if model.header.is_embedding:
        task = "chat" if request.is_chat else "generate"
        raise BadRequest(f'"{request.model}" does not support {task}')


def load_or_unload(
    request: GenerateRequest, model: StoredModel, pool: ModelPool, client: ClientConnection
) -> ResponseLine:
    """Answer a request without a prompt: unload the model if `keep_alive` is 0, else load it."""
    if request.is_unload:
        pool.unload(model)
        return _response_line(request, "", done=True, done_reason="unload")
    with pool.engine(model, request.options, request.keep_alive, client):
        return _response_line(request, "", done=True, done_reason="load")


def generation_lines(
    request: GenerateRequest, model: StoredModel, pool: ModelPool, client: ClientConnection
) -> ResponseLines:
    """Yield a line for each piece of text, then the line with `done: true` and the counts.

    Counts and times, except `total_duration` and `load_duration`, are those of the engine. If the
    engine is ended because of another request before the first line, the request is repeated once.
    Raise `EngineRefused` for a prompt that is longer than the context; it is never cut.
    """
    started = time.perf_counter_ns()
    lines = _generation_lines(request, model, pool, client, started)
    try:
        first = next(lines)
    except EngineStopped:
        lines = _generation_lines(request, model, pool, client, started)
        first = next(lines)
    with closing(lines):
        yield first
        yield from lines


def _generation_lines(
    request: GenerateRequest,
    model: StoredModel,
    pool: ModelPool,
    client: ClientConnection,
    started: int,
) -> ResponseLines:
    with ExitStack() as held:
        loading = pool.engine(model, request.options, request.keep_alive, client)
        engine = held.enter_context(loading)
        load_duration = durations.nanoseconds_since(started)
        held.enter_context(engine.slots.acquire(client))
        body = _engine_request(request, engine, client)
        reports = _token_reports(request, body["prompt"], engine, client)
        with closing(engine.stream("/completion", body, client)) as events:
            for event in reports.without_overlap(events) if reports else events:
                fields = {"logprobs": reports.entries(event)} if reports else {}
                if text := event["content"]:
                    yield _response_line(request, text, done=False, **fields)
                if event["stop"]:
                    metrics = _metrics(event, started, load_duration)
                    yield _response_line(request, "", done=True, **metrics)
                    return
        raise engine.death()


def join_lines(lines: Iterator[ResponseLine]) -> ResponseLine:
    """Return the lines of a stream as the one object of `stream: false`."""
    texts, logprobs = [], []
    for line in lines:
        texts.append(_text_of(line))
        logprobs += line.get("logprobs", [])
    answer = _with_text(line, "".join(texts))
    return {**answer, "logprobs": logprobs} if logprobs else answer


def _engine_request(
    request: GenerateRequest, engine: Engine, client: ClientConnection
) -> dict[str, Any]:
    body = {**request.options.sampling, "prompt": _prompt(request, engine, client)}
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)  # with 0 the engine reports none at all
    if request.format is not None:
        body["grammar"] = grammar.grammar_for(request.format, engine, client)
    # With progress reports the engine writes while it reads the prompt. Only by writing does it
    # notice that the connection was closed.
    return {**body, "return_progress": True}


def _prompt(request: GenerateRequest, engine: Engine, client: ClientConnection) -> str:
    if request.prompt is not None:
        return request.prompt
    # With thinking enabled, a model would put its reasoning into the answer.
    arguments = {"chat_template_kwargs": {"enable_thinking": False}}
    body = {"messages": request.messages, **arguments}
    try:
        limit = SilenceLimit(engine, hears_streams=False)
        work = partial(engine.request, "/apply-template", body, limit)
        answer = finish_without_client(work, client)
    except EngineStalled as exc:
        seconds = engine.launch.compile_timeout_seconds
        raise TemplateTooSlow(f"the model's chat template takes longer than {seconds:g} s") from exc
    return str(answer["prompt"])


def _response_line(request: GenerateRequest, text: str, **fields: Any) -> ResponseLine:
    head = {"model": request.model, "created_at": durations.now()}
    if request.is_chat:
        return {**head, "message": {"role": "assistant", "content": text}, **fields}
    return {**head, "response": text, **fields}


def _token_reports(
    request: GenerateRequest, prompt: str, engine: Engine, client: ClientConnection
) -> TokenReports | None:
    if request.top_logprobs is None:
        return None
    return TokenReports(prompt, request.top_logprobs, engine, client)


def _text_of(line: ResponseLine) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])


def _with_text(line: ResponseLine, text: str) -> ResponseLine:
    if "message" in line:
        return {**line, "message": {**line["message"], "content": text}}
    return {**line, "response": text}


def _metrics(event: dict[str, Any], started: int, load_duration: int) -> dict[str, Any]:
    timings = event["timings"]
    return {
        "done_reason": DONE_REASONS.get(event["stop_type"], "stop"),
        "total_duration": durations.nanoseconds_since(started),
        "load_duration": load_duration,
        "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
        "prompt_cached_count": timings["cache_n"],
        "prompt_eval_duration": round(timings["prompt_ms"] * 1e6),
        "eval_count": timings["predicted_n"],
        "eval_duration": round(timings["predicted_ms"] * 1e6),
    }
