"""Chat completions: a conversation as OpenAI's clients hold it."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator

from flask import Blueprint, Response

from mes.api import execution
from mes.api.auth import auth
from mes.api.openai.chat_schemas import ChatRequest, ChatRequestSchema
from mes.api.openai.common import (
    DONE,
    EVENTS,
    Document,
    last_chunks,
    output_text,
    response_head,
    whole_response,
)
from mes.api.openai.openai_schemas import ChatCompletion, ChatCompletionChunk, OpenAiErrorSchema
from mes.api.operation_docs import EVENT_STREAM, JSON, documented, events_schema
from mes.api.request_body import request_body
from mes.api.serializers import json_response, serialize_logprobs
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, Thought, Token

CHUNKS = events_schema(ChatCompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("chat", __name__, url_prefix="/v1/chat")


@bp.post("/completions")
@auth.login_required
@request_body(ChatRequestSchema())
@documented({JSON: ChatCompletion, EVENT_STREAM: CHUNKS}, raises=execution.ERRORS)
def create(request: ChatRequest) -> Response:
    """Answer the last turn of a conversation, at once or in server-sent events."""
    if request.inference.stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_chunks(request, response_stream))
    return json_response(completion(execution.run_blocking(request.inference), request))


def _chunks(request: ChatRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    chunks = Chunks(request)
    document = yield from execution.run_streaming(request.inference, chunks.of, response_stream)
    yield chunks.last(document)


# Chat completions: an inference's answer as OpenAI tells it, whole or in chunks.


def completion(document: Document, request: ChatRequest) -> Document:
    """The whole answer."""
    start = response_head("chat.completion", "chatcmpl", request.inference.model_id)
    message = _message(document, _calls(document, _call_id(start), request.function))
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(document.get("logprobs")),
        "finish_reason": _finish_reason(document, request),
    }
    return whole_response(start, choice, document)


class Chunks:
    """The same answer while it comes."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = response_head("chat.completion.chunk", "chatcmpl", request.inference.model_id)
        if request.with_usage:
            self._head["usage"] = None
        self._next_delta: Document = {"role": "assistant"}
        if request.function:
            named = _call(_call_id(self._head), request.function, "")
            self._next_delta["tool_calls"] = [{"index": 0, **named}]

    def of(self, event: Event) -> Document | None:
        """The chunk that tells of the event, where that is told."""
        if isinstance(event, Token):
            logprobs = serialize_logprobs(event.logprobs) if event.logprobs else None
            return self._chunk(self._said(event.text), logprobs=_logprobs(logprobs))
        if isinstance(event, Thought):
            return self._chunk({"reasoning": event.text})
        return None

    def last(self, document: Document) -> Iterator[Document]:
        """What is known at the end only."""
        if calls := [] if self._request.function else _calls(document, "", None):
            told = [{"index": number, **call} for number, call in enumerate(calls)]
            yield self._chunk({"tool_calls": told})
        choice = self._choice({}, finish_reason=_finish_reason(document, self._request))
        yield from last_chunks(self._head, choice, document, with_usage=self._request.with_usage)

    def _said(self, text: str) -> Document:
        if not self._request.function:
            return {"content": text}
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}

    def _chunk(self, delta: Document, *, logprobs: Document | None = None) -> Document:
        return {**self._head, "choices": [self._choice(delta, logprobs=logprobs)]}

    def _choice(
        self,
        delta: Document,
        *,
        finish_reason: str | None = None,
        logprobs: Document | None = None,
    ) -> Document:
        return {
            "index": 0,
            "delta": self._begun_with(delta),
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _begun_with(self, delta: Document) -> Document:
        first, self._next_delta = self._next_delta, {}
        if "tool_calls" in first and "tool_calls" in delta:
            first["tool_calls"][0]["function"] |= delta.pop("tool_calls")[0]["function"]
        return {**first, **delta}


def _message(document: Document, calls: list[Document]) -> Document:
    message: Document = {"role": "assistant", "content": output_text(document), "refusal": None}
    if document.get("reasoning"):
        message["reasoning"] = document["reasoning"]
    if calls:
        message["tool_calls"] = calls
        message["content"] = document["output"] if "tool_calls" in document else None
    return message


def _calls(document: Document, call_id: str, function: str | None) -> list[Document]:
    """The calls of the model; or the one call that its answer had to be."""
    if function is not None:
        return [_call(call_id, function, output_text(document))]
    return [
        _call(call["id"], call["name"], json.dumps(dict(call["arguments"]), ensure_ascii=False))
        for call in document.get("tool_calls", [])
    ]


def _call(call_id: str, name: str, arguments: str) -> Document:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _call_id(start: Document) -> str:
    return str(start["id"]).replace("chatcmpl-", "call_", 1)


def _finish_reason(document: Document, request: ChatRequest) -> str:
    reason: str = document["finish_reason"]
    called = request.function is not None or "tool_calls" in document
    return "tool_calls" if called and reason == "stop" else reason


def _logprobs(told: list[Document] | None) -> Document | None:
    return None if told is None else {"content": told, "refusal": None}
