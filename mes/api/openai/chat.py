"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from flask import Blueprint, Response

from mes.api.auth import auth
from mes.api.inference import INFERENCE_ERRORS
from mes.api.inference_responses import InferenceOutcome
from mes.api.openai.chat_schemas import ChatRequest, ChatRequestSchema
from mes.api.openai.common import (
    DONE,
    EVENTS,
    output_text,
    own_fields,
    response_head,
    run_all,
    stream_all,
    whole_response,
)
from mes.api.openai.openai_schemas import (
    AssistantMessage,
    CalledFunction,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    OpenAiErrorSchema,
    ToolCallSchema,
)
from mes.api.operation_docs import EVENT_STREAM, JSON, documented, events_schema
from mes.api.request_body import request_body
from mes.api.response_fields import Document, json_response
from mes.api.streaming import Documents, StreamingResponse
from mes.domain import Event, Logprob, Thought, Token

CHUNKS = events_schema(ChatCompletionChunk, OpenAiErrorSchema, last=DONE)

bp = Blueprint("chat", __name__, url_prefix="/v1/chat")


@bp.post("/completions")
@auth.login_required
@request_body(ChatRequestSchema())
@documented({JSON: ChatCompletion, EVENT_STREAM: CHUNKS}, raises=INFERENCE_ERRORS)
def create(request: ChatRequest) -> Response:
    """Answer the last message of a conversation.

    With `stream`, sends server-sent events.
    """
    if request.inference.stream:
        response_stream = StreamingResponse(EVENTS)
        return response_stream.response(_stream(request, response_stream))
    return json_response(_completion(run_all(request.choices), request))


def _stream(request: ChatRequest, response_stream: StreamingResponse) -> Generator[Documents]:
    return stream_all(
        request,
        response_stream,
        schema=ChatCompletionChunk,
        build_head=partial(response_head, "chat.completion.chunk", "chatcmpl"),
        create_chunks=partial(_ChatChunks, request),
    )


def _completion(outcomes: Sequence[InferenceOutcome], request: ChatRequest) -> Document:
    head = response_head("chat.completion", "chatcmpl", outcomes[0].inference.model_id)
    return whole_response(ChatCompletion, head, outcomes, partial(_build_choice, request))


def _build_choice(request: ChatRequest, outcome: InferenceOutcome) -> Document:
    return ChatChoice.build(
        index=outcome.index,
        message=_message(outcome, _calls(outcome)),
        logprobs=_logprobs(outcome.reply.logprobs, request),
        finish_reason=_finish_reason(outcome),
    )


class _ChatChunks:
    """The chunks of one choice of a streamed chat completion.

    Chunks of tokens are written as dictionaries, which costs less than `build`; the tests compare
    them with the declared fields.
    """

    def __init__(self, request: ChatRequest, head: Document, index: int) -> None:
        self._request = request
        self._head = head
        self._index = index
        self._has_text = False
        # Fields that go into the next chunk's delta, whichever it is.
        self._next_delta: Document = {"role": "assistant"}
        if request.function:
            call = _call(_call_id(head, index), request.function, "")
            self._next_delta["tool_calls"] = [{"index": 0, **call}]

    def serialize(self, event: Event) -> Document | None:
        """Return the chunk that reports the event; None for an event that is not reported."""
        if isinstance(event, Token):
            self._has_text = True
            logprobs = _logprobs(event.logprobs, self._request)
            return self._chunk(self._text_delta(event.text), logprobs=logprobs)
        if isinstance(event, Thought):
            return self._chunk({"reasoning": event.text})
        return None

    def last(self, outcome: InferenceOutcome) -> Iterator[Document]:
        """Yield the chunks with the tool calls and the finish reason."""
        if calls := self._last_calls(outcome):
            yield self._chunk({"tool_calls": calls})
        empty = None if self._has_text else _logprobs((), self._request)
        choice = self._choice({}, finish_reason=_finish_reason(outcome), logprobs=empty)
        yield ChatCompletionChunk.build(**self._head, choices=[choice], **own_fields(outcome))

    def _last_calls(self, outcome: InferenceOutcome) -> list[Document]:
        """Return the pieces of calls that were not sent as text."""
        if self._request.function is None:
            return [{"index": number, **call} for number, call in enumerate(_calls(outcome))]
        if outcome.reply.text.strip():
            return []
        arguments = outcome.final.tool_calls[0].arguments_text
        return [{"index": 0, "function": {"arguments": arguments}}] if arguments else []

    def _text_delta(self, text: str) -> Document:
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
            "index": self._index,
            "delta": self._with_next_delta(delta),
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _with_next_delta(self, delta: Document) -> Document:
        first, self._next_delta = self._next_delta, {}
        if "tool_calls" in first and "tool_calls" in delta:
            first["tool_calls"][0]["function"] |= delta.pop("tool_calls")[0]["function"]
        return {**first, **delta}


def _message(outcome: InferenceOutcome, calls: list[Document]) -> Document:
    content: str | None = output_text(outcome)
    if calls:
        # Beside calls of the model its text is kept; a call that it wrote is the text itself.
        content = outcome.reply.text if outcome.reply.tool_calls else None
    optional = {"reasoning": outcome.reply.reasoning, "tool_calls": calls}
    return AssistantMessage.build(
        role="assistant",
        content=content,
        refusal=None,
        **{name: value for name, value in optional.items() if value},
    )


def _calls(outcome: InferenceOutcome) -> list[Document]:
    """Return the tool calls that the model made or wrote as text."""
    return [_call(call.id, call.name, call.arguments_text) for call in outcome.final.tool_calls]


def _call(call_id: str, name: str, arguments: str) -> Document:
    function = CalledFunction.build(name=name, arguments=arguments)
    return ToolCallSchema.build(id=call_id, type="function", function=function)


def _call_id(head: Document, index: int) -> str:
    """Return the id of a required call, unique among the choices of a response."""
    call_id = str(head["id"]).replace("chatcmpl-", "call_", 1)
    return f"{call_id}_{index}" if index else call_id


def _finish_reason(outcome: InferenceOutcome) -> str:
    reason = outcome.reply.finish_reason
    return "tool_calls" if outcome.final.tool_calls and reason == "stop" else reason


def _logprobs(logprobs: Sequence[Logprob], request: ChatRequest) -> Document | None:
    return ChatLogprobs.serialize(logprobs) if request.with_logprobs else None
