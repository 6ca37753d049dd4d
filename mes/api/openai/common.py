"""Parameters that OpenAI's requests have in common, and what MES makes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from marshmallow import ValidationError, fields

from mes.api.openai.error_format import to_openai_error
from mes.api.operation_docs import EVENT_STREAM
from mes.api.request_fields import MESSAGES, NOT_EMPTY, Flag, Strict, Text
from mes.api.request_log import request_log
from mes.api.request_schemas import AttemptsSchema, SamplingSchema, given_options, sampling_options
from mes.api.services import services
from mes.api.streaming import Encoder
from mes.domain import InferenceRequest


class OpenAiRequestSchema(Strict):
    """A part of a request; whatever else stands in it is not dropped in silence."""

    error_messages = {"unknown": "is not supported; leave it out", "type": "must be a JSON object"}


class OnlyValue(fields.Field[Any]):
    """A parameter with one value that can be served; left out or null, it is the same."""

    default_error_messages = MESSAGES

    def __init__(self, value: Any) -> None:
        super().__init__(allow_none=True)
        self._only = value
        self.shape = {"enum": [None] if value is None else [value, None]}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        # True would pass for 1.
        if value != self._only or isinstance(value, bool) != isinstance(self._only, bool):
            raise ValidationError(f"is supported as {json.dumps(self._only)} only; leave it out")
        return value


class StreamOptionsSchema(OpenAiRequestSchema):
    """`stream_options`."""

    include_usage = Flag(allow_none=True)
    include_obfuscation = OnlyValue(False)


class MesOptionsSchema(AttemptsSchema, OpenAiRequestSchema):
    """`mes`: what OpenAI has no words for."""


class AddressSchema(OpenAiRequestSchema):
    """Who is asked, and how the answer is to come."""

    model = Text(required=True, validate=NOT_EMPTY)
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(StreamOptionsSchema, allow_none=True)


# Its fields come after those of its bases, and theirs from behind.
class Parameters(SamplingSchema, AddressSchema):
    """What every generation takes."""

    n = OnlyValue(1)
    logit_bias = OnlyValue({})
    mes = fields.Nested(MesOptionsSchema, allow_none=True)
    # Of no consequence for the answer.
    user = Text(allow_none=True)


def inference_of(given: dict[str, Any], **more: Any) -> InferenceRequest:
    """The request for an inference; `more` is what not every generation takes."""
    own = given_options(given.get("mes", {}))
    if given.get("stream") and own.get("max_attempts", 1) > 1:
        # Pieces of a second answer would run into the first.
        raise ValidationError({"mes": {"max_attempts": "goes without stream"}})
    return InferenceRequest(
        model_id=given["model"],
        stream=given.get("stream", False),
        temperature=given.get("temperature"),
        timeout_seconds=own.pop("timeout", None),
        sampling=sampling_options(given),
        **own,
        **more,
    )


def wants_usage(given: dict[str, Any]) -> bool:
    """Whether a stream ends with its usage."""
    return bool(given.get("stream_options", {}).get("include_usage"))


# What the answers at OpenAI's doors have in common.

Document = dict[str, Any]

# Facts that OpenAI has no place for; its clients pass over the member that holds them.
_OWN = (
    "success",
    "code",
    "error",
    "request_id",
    "latency_ms",
    "timings",
    "structured",
    "provenance",
)


def response_head(kind: str, prefix: str, model_id: str) -> Document:
    """What each answer, and each piece of one, begins with. Raises ModelNotFound."""
    return {
        "id": f"{prefix}-{request_log().request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": services().catalog.current().get(model_id).id,
    }


def whole_response(start: Document, choice: Document, document: Document) -> Document:
    """The answer."""
    facts = {"usage": document["usage"], **_facts(document)}
    return {**start, "choices": [choice], **facts}


def last_chunks(
    start: Document, choice: Document, document: Document, *, with_usage: bool
) -> Iterator[Document]:
    """The last chunks of it."""
    yield {**start, "choices": [choice], **_facts(document)}
    if with_usage:
        yield {**start, "choices": [], "usage": document["usage"]}


def _facts(document: Document) -> Document:
    return {"system_fingerprint": _fingerprint(document), "mes": _own(document)}


def _own(document: Document) -> Document:
    """The member `mes`."""
    told = {name: document[name] for name in _OWN if name in document}
    if "tool_calls" in document:
        judged = ("id", "verdict", "errors")
        calls = [{name: call[name] for name in judged} for call in document["tool_calls"]]
        told["tool_calls"] = calls
    return told


def _fingerprint(document: Document) -> str | None:
    """Alike where the same model answered."""
    digest = document["provenance"]["model_digest"]
    return digest and f"fp_{digest.removeprefix('sha256:')[:12]}"


def output_text(document: Document) -> str:
    """The output; of a valid answer in a fence or in prose, the JSON alone."""
    structured = document["structured"]
    if structured and structured["verdict"] == "valid" and structured["extraction"] != "whole":
        return json.dumps(document["parsed"], ensure_ascii=False)
    output: str = document["output"]
    return output


# Server-sent events, as OpenAI frames its streams.

DONE = "[DONE]"
EVENTS = Encoder(
    EVENT_STREAM, b"data: ", b"\n\n", to_openai_error, end=f"data: {DONE}\n\n".encode()
)
