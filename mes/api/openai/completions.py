"""Completions: a prompt without a conversation, as OpenAI's older clients send it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response
from marshmallow import ValidationError, fields, post_load

from mes.api import execution
from mes.api.auth import auth
from mes.api.openai.common import (
    DONE,
    EVENTS,
    Document,
    OnlyValue,
    Parameters,
    inference_of,
    last_chunks,
    response_head,
    wants_usage,
    whole_response,
)
from mes.api.openai.openai_schemas import Completion, CompletionChunk, OpenAiErrorSchema
from mes.api.operation_docs import EVENT_STREAM, JSON, documented, events_schema
from mes.api.request_body import request_body
from mes.api.request_fields import MESSAGES, Whole, between
from mes.api.request_schemas import given_options
from mes.api.serializers import json_response, serialize_logprobs
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, InferenceRequest, Token

CHUNKS = events_schema(CompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("completions", __name__, url_prefix="/v1")


@dataclass(frozen=True)
class CompletionRequest:
    """An inference, and how its answer is to be told."""

    inference: InferenceRequest
    with_usage: bool


class OnePrompt(fields.Field[str]):
    """A text, or a list with one."""

    shape = {"type": ["string", "array"], "minLength": 1, "items": {"type": "string"}}
    shape |= {"minItems": 1, "maxItems": 1}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        texts = value if isinstance(value, list) else [value]
        if len(texts) != 1 or not isinstance(texts[0], str) or not texts[0]:
            raise ValidationError("must be one text, not empty; send one request for each")
        return texts[0]


class CompletionRequestSchema(Parameters):
    """`POST /v1/completions`."""

    prompt = OnePrompt(required=True)
    logprobs = Whole(allow_none=True, validate=between(0, 20))
    best_of = OnlyValue(1)
    echo = OnlyValue(False)
    suffix = OnlyValue(None)

    @post_load
    def _request(self, given: dict[str, Any], **kwargs: Any) -> CompletionRequest:
        given = given_options(given)
        inference = inference_of(
            given,
            prompt=given["prompt"],
            max_tokens=given.get("max_tokens"),
            top_logprobs=given.get("logprobs"),
        )
        return CompletionRequest(inference, wants_usage(given))


@bp.post("/completions")
@auth.login_required
@request_body(CompletionRequestSchema())
@documented({JSON: Completion, EVENT_STREAM: CHUNKS}, raises=execution.ERRORS)
def create(request: CompletionRequest) -> Response:
    """Complete a prompt, through the model's own template."""
    if request.inference.stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_chunks(request, response_stream))
    return json_response(_completion(execution.run_blocking(request.inference), request))


def _completion(document: Document, request: CompletionRequest) -> Document:
    told = _choice(document["output"], document["finish_reason"], document.get("logprobs"))
    return whole_response(_head(request), told, document)


def _chunks(request: CompletionRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    start = {**_head(request), **({"usage": None} if request.with_usage else {})}

    def chunk(event: Event) -> Document | None:
        if not isinstance(event, Token):
            return None
        logprobs = serialize_logprobs(event.logprobs) if event.logprobs else None
        return {**start, "choices": [_choice(event.text, None, logprobs)]}

    document = yield from execution.run_streaming(request.inference, chunk, response_stream)
    last = _choice("", document["finish_reason"], None)
    yield last_chunks(start, last, document, with_usage=request.with_usage)


def _head(request: CompletionRequest) -> Document:
    return response_head("text_completion", "cmpl", request.inference.model_id)


def _choice(text: str, finish_reason: str | None, logprobs: list[Document] | None) -> Document:
    told = {"index": 0, "text": text, "finish_reason": finish_reason}
    return {**told, "logprobs": None if logprobs is None else _logprobs(logprobs)}


def _logprobs(told: list[Document]) -> Document:
    """In the older shape: a list for each kind of fact."""
    offsets = [0]
    for each in told:
        offsets.append(offsets[-1] + len(each["token"]))
    return {
        "tokens": [each["token"] for each in told],
        "token_logprobs": [each["logprob"] for each in told],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in told
        ],
        "text_offset": offsets[:-1],
    }
