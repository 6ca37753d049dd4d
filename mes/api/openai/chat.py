"""Chat completions: a conversation as OpenAI's clients hold it."""

from __future__ import annotations

from collections.abc import Generator

from flask import Blueprint, Response

from mes.api import running
from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.openai.chat_answer import Chunks, completion
from mes.api.openai.chat_request import ChatRequest, ChatRequestSchema
from mes.api.openai.events import DONE, EVENTS
from mes.api.openai.shapes import ChatCompletion, ChatCompletionChunk, OpenAiError
from mes.api.promises import EVENT_STREAM, JSON, events_of, promises
from mes.api.streamed import Delivery, Documents

CHUNKS = events_of(ChatCompletionChunk, OpenAiError, last=DONE)

bp = Blueprint("chat", __name__, url_prefix="/v1/chat")


@bp.post("/completions")
@auth.login_required
@body(ChatRequestSchema())
@promises({JSON: ChatCompletion, EVENT_STREAM: CHUNKS}, raises=running.ERRORS)
def create(request: ChatRequest) -> Response:
    """Answer the last turn of a conversation, at once or in server-sent events."""
    if request.inference.stream:
        delivery = Delivery(EVENTS)
        return delivery.response(_chunks(request, delivery))
    return answer(completion(running.answered(request.inference), request))


def _chunks(request: ChatRequest, delivery: Delivery) -> Generator[Documents]:
    chunks = Chunks(request)
    document = yield from running.happening(request.inference, chunks.of, delivery)
    yield chunks.last(document)
