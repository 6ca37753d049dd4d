"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response
from marshmallow import ValidationError, fields, post_load

from mes.api.auth import auth
from mes.api.ignored_fields import ignored_names
from mes.api.inference import INFERENCE_ERRORS
from mes.api.inference_responses import InferenceOutcome
from mes.api.openai.common import (
    DONE,
    EVENTS,
    Parameters,
    choices_of,
    inference_of,
    own_fields,
    response_head,
    run_all,
    stream_all,
    wants_running_usage,
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
from mes.api.request_schemas import MESSAGES, OnlyValue, Whole, between, without_nulls
from mes.api.response_fields import Document, json_response
from mes.api.services import get_services
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, InferenceRequest, Logprob, Token

CHUNKS = events_schema(CompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("completions", __name__, url_prefix="/v1")


_MAX_PROMPTS = 2048


@dataclass(frozen=True)
class CompletionRequest:
    """The inference requests of all choices, and where a stream has its usage."""

    choices: list[InferenceRequest]
    with_usage: bool
    with_running_usage: bool

    @property
    def model_id(self) -> str:
        return self.choices[0].model_id


class Prompts(fields.Field[list[str]]):
    """A text, or a list of texts; loads as a list."""

    shape = {"type": ["string", "array"], "minLength": 1, "items": {"type": "string"}}
    shape |= {"minItems": 1, "maxItems": _MAX_PROMPTS}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ValidationError("must not be an empty list")
        if not all(isinstance(text, str) for text in texts):
            raise ValidationError("must be a text or a list of texts")
        if not all(texts):
            raise ValidationError("must not be empty, nor contain an empty text")
        return texts


class CompletionRequestSchema(Parameters):
    """The body of `POST /v1/completions`."""

    prompt = Prompts(required=True)
    logprobs = Whole(allow_none=True, validate=between(0, 20))
    best_of = Whole(allow_none=True)
    echo = OnlyValue(False)
    suffix = OnlyValue(None, "")

    @post_load(pass_original=True)
    def _request(
        self, values: dict[str, Any], document: dict[str, Any], **kwargs: Any
    ) -> CompletionRequest:
        values = without_nulls(values)
        _refuse_selection(values)
        _refuse_too_many(len(values["prompt"]), values)
        inference = inference_of(
            values,
            max_tokens=values.get("max_tokens"),
            top_logprobs=values.get("logprobs"),
            ignored=ignored_names(self, document),
        )
        choices = [
            choice
            for prompt in values["prompt"]
            for choice in choices_of(replace(inference, prompt=prompt), values)
        ]
        return CompletionRequest(choices, wants_usage(values), wants_running_usage(values))


def _refuse_selection(values: dict[str, Any]) -> None:
    if values.get("best_of", 1) not in (1, values.get("n", 1)):
        mistake = "is supported as 1 or n only; ask for all of them with n, and choose among them"
        raise ValidationError(mistake, "best_of")


def _refuse_too_many(prompts: int, values: dict[str, Any]) -> None:
    generations = prompts * values.get("n", 1)
    limit = get_services().settings.max_generations
    if generations > limit:
        raise ValidationError(
            f"asks for {generations} generations, more than {limit} (MAX_GENERATIONS); send fewer "
            "prompts in each of several requests, or raise MAX_GENERATIONS",
            "prompt",
        )


@bp.post("/completions")
@auth.login_required
@request_body(CompletionRequestSchema())
@documented({JSON: Completion, EVENT_STREAM: CHUNKS}, raises=INFERENCE_ERRORS)
def create(request: CompletionRequest) -> Response:
    """Complete one or more prompts.

    Each prompt goes through the chat template of the model. With `stream`, sends server-sent
    events.
    """
    if request.choices[0].stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_stream(request, response_stream))
    outcomes = run_all(request.choices)
    return json_response(whole_response(Completion, _head(request), outcomes, _whole_choice))


def _stream(request: CompletionRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    head = {**_head(request), **({"usage": None} if request.with_usage else {})}
    chunks = [_Chunks(head, index) for index in range(len(request.choices))]
    yield from stream_all(
        request.choices,
        chunks,
        response_stream,
        schema=CompletionChunk,
        head=head,
        with_running_usage=request.with_running_usage,
    )


class _Chunks:
    """The chunks of one choice of a streamed completion."""

    def __init__(self, head: Document, index: int) -> None:
        self._head = head
        self._index = index

    def serialize(self, event: Event) -> Document | None:
        """Return the chunk that reports the event; None for an event that is not reported."""
        if not isinstance(event, Token):
            return None
        return {**self._head, "choices": [_choice(self._index, event.text, None, event.logprobs)]}

    def last(self, outcome: InferenceOutcome) -> Iterator[Document]:
        """Yield the chunk with the finish reason."""
        choice = _choice(self._index, "", outcome.reply.finish_reason, ())
        yield CompletionChunk.build(**self._head, choices=[choice], **own_fields(outcome))


def _head(request: CompletionRequest) -> Document:
    return response_head("text_completion", "cmpl", request.model_id)


def _whole_choice(outcome: InferenceOutcome) -> Document:
    reply = outcome.reply
    return _choice(outcome.index, reply.text, reply.finish_reason, reply.logprobs)


def _choice(
    index: int, text: str, finish_reason: str | None, logprobs: Sequence[Logprob]
) -> Document:
    return CompletionChoice.build(
        index=index,
        text=text,
        finish_reason=finish_reason,
        logprobs=CompletionLogprobs.serialize(logprobs) if logprobs else None,
    )
