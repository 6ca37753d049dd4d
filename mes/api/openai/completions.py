"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response
from marshmallow import ValidationError, fields, post_load

from mes.api.auth import auth
from mes.api.inference import INFERENCE_ERRORS, run_blocking, run_streaming
from mes.api.openai.common import (
    DONE,
    EVENTS,
    OnlyValue,
    Parameters,
    inference_of,
    last_chunks,
    response_head,
    wants_usage,
    whole_response,
)
from mes.api.openai.openai_schemas import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    OpenAiErrorSchema,
)
from mes.api.operation_docs import EVENT_STREAM, JSON, documented, events_schema
from mes.api.request_body import request_body
from mes.api.request_schemas import MESSAGES, Whole, between, without_nulls
from mes.api.response_fields import Document, json_response
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, InferenceRequest, Logprob, Token

CHUNKS = events_schema(CompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("completions", __name__, url_prefix="/v1")


@dataclass(frozen=True)
class CompletionRequest:
    """An inference request, and whether a stream ends with its usage."""

    inference: InferenceRequest
    with_usage: bool


class OnePrompt(fields.Field[str]):
    """A text, or a list with one text."""

    shape = {"type": ["string", "array"], "minLength": 1, "items": {"type": "string"}}
    shape |= {"minItems": 1, "maxItems": 1}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        texts = value if isinstance(value, list) else [value]
        if len(texts) != 1 or not isinstance(texts[0], str) or not texts[0]:
            raise ValidationError("must be one text that is not empty; send a request for each")
        return texts[0]


class CompletionRequestSchema(Parameters):
    """The body of `POST /v1/completions`."""

    prompt = OnePrompt(required=True)
    logprobs = Whole(allow_none=True, validate=between(0, 20))
    best_of = OnlyValue(1)
    echo = OnlyValue(False)
    suffix = OnlyValue(None)

    @post_load
    def _request(self, values: dict[str, Any], **kwargs: Any) -> CompletionRequest:
        values = without_nulls(values)
        inference = inference_of(
            values,
            prompt=values["prompt"],
            max_tokens=values.get("max_tokens"),
            top_logprobs=values.get("logprobs"),
        )
        return CompletionRequest(inference, wants_usage(values))


@bp.post("/completions")
@auth.login_required
@request_body(CompletionRequestSchema())
@documented({JSON: Completion, EVENT_STREAM: CHUNKS}, raises=INFERENCE_ERRORS)
def create(request: CompletionRequest) -> Response:
    """Complete a prompt.

    The prompt goes through the chat template of the model. With `stream`, sends server-sent events.
    """
    if request.inference.stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_stream(request, response_stream))
    outcome = run_blocking(request.inference)
    reply = outcome.reply
    choice = _choice(reply.text, reply.finish_reason, reply.logprobs)
    return json_response(whole_response(Completion, _head(request), choice, outcome))


def _stream(request: CompletionRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    head = {**_head(request), **({"usage": None} if request.with_usage else {})}

    def chunk(event: Event) -> Document | None:
        if not isinstance(event, Token):
            return None
        return {**head, "choices": [_choice(event.text, None, event.logprobs)]}

    outcome = yield from run_streaming(request.inference, chunk, response_stream)
    choice = _choice("", outcome.reply.finish_reason, ())
    yield last_chunks(CompletionChunk, head, choice, outcome, with_usage=request.with_usage)


def _head(request: CompletionRequest) -> Document:
    return response_head("text_completion", "cmpl", request.inference.model_id)


def _choice(text: str, finish_reason: str | None, logprobs: Sequence[Logprob]) -> Document:
    return CompletionChoice.build(
        index=0,
        text=text,
        finish_reason=finish_reason,
        logprobs=CompletionLogprobs.serialize(logprobs) if logprobs else None,
    )
