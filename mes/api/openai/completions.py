"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.inference import INFERENCE_ERRORS
from mes.api.inference_responses import InferenceOutcome
from mes.api.openai.common import (
    DONE,
    EVENTS,
    ChoicesRequest,
    own_fields,
    response_head,
    run_all,
    stream_all,
    whole_response,
)
from mes.api.openai.completion_logprobs import CompletionLogprobs, TextTokens
from mes.api.openai.completion_schemas import CompletionRequestSchema
from mes.api.openai.openai_schemas import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    OpenAiErrorSchema,
)
from mes.api.operation_docs import EVENT_STREAM, JSON, documented, events_schema
from mes.api.request_body import request_body
from mes.api.response_fields import Document, json_response
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, Token

CHUNKS = events_schema(CompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("completions", __name__, url_prefix="/v1")


@bp.post("/completions")
@auth.login_required
@request_body(CompletionRequestSchema())
@documented({JSON: Completion, EVENT_STREAM: CHUNKS}, raises=INFERENCE_ERRORS)
def create(request: ChoicesRequest) -> Response:
    """Complete one or more prompts.

    Each prompt goes through the chat template of the model. With `stream`, sends server-sent
    events.
    """
    if request.inference.stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_stream(request, response_stream))
    outcomes = run_all(request.choices)
    head = _head(outcomes[0].inference.model_id)
    build_choice = partial(_whole_choice, request)
    return json_response(whole_response(Completion, head, outcomes, build_choice))


def _stream(request: ChoicesRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    return stream_all(
        request,
        response_stream,
        schema=CompletionChunk,
        build_head=_head,
        create_chunks=partial(_CompletionChunks, request),
    )


class _CompletionChunks:
    """The chunks of one choice of a streamed completion."""

    def __init__(self, request: ChoicesRequest, head: Document, index: int) -> None:
        self._request = request
        self._head = head
        self._index = index
        self._length = 0  # of the text so far

    def serialize(self, event: Event) -> Document | None:
        """Return the chunk that reports the event; None for an event that is not reported."""
        if not isinstance(event, Token):
            return None
        tokens = TextTokens(event.text, event.logprobs, start=self._length)
        self._length += len(event.text)
        return {**self._head, "choices": [self._choice(tokens, None)]}

    def last(self, outcome: InferenceOutcome) -> Iterator[Document]:
        """Yield the chunk with the finish reason."""
        choice = self._choice(TextTokens("", ()), outcome.reply.finish_reason)
        yield CompletionChunk.build(**self._head, choices=[choice], **own_fields(outcome))

    def _choice(self, tokens: TextTokens, finish_reason: str | None) -> Document:
        # The last chunk has no probabilities, unless the answer is empty.
        is_end_of_text = finish_reason is not None and self._length > 0
        with_logprobs = self._request.with_logprobs and not is_end_of_text
        return _choice(self._index, tokens, finish_reason, with_logprobs=with_logprobs)


def _head(model_id: str) -> Document:
    return response_head("text_completion", "cmpl", model_id)


def _whole_choice(request: ChoicesRequest, outcome: InferenceOutcome) -> Document:
    reply = outcome.reply
    tokens = TextTokens(reply.text, reply.logprobs)
    with_logprobs = request.with_logprobs
    return _choice(outcome.index, tokens, reply.finish_reason, with_logprobs=with_logprobs)


def _choice(
    index: int, tokens: TextTokens, finish_reason: str | None, *, with_logprobs: bool
) -> Document:
    return CompletionChoice.build(
        index=index,
        text=tokens.text,
        finish_reason=finish_reason,
        logprobs=CompletionLogprobs.serialize(tokens) if with_logprobs else None,
    )
