"""`/v1/embeddings`: its schemas and its view."""

from __future__ import annotations

import struct
from array import array
from base64 import b64encode
from typing import Any

import orjson
from flask import Blueprint, Response
from marshmallow import ValidationError, fields, post_load, validate

from mes.api.auth import auth
from mes.api.openai.common import OpenAiRequestSchema
from mes.api.operation_docs import RUN_ERRORS, documented
from mes.api.request_body import request_body
from mes.api.request_fields import NOT_EMPTY, Text, Whole, between
from mes.api.request_log import RequestLog, request_log
from mes.api.response_fields import (
    ResponseSchema,
    flag,
    json_object,
    many,
    member,
    one,
    one_of,
    text,
    whole,
)
from mes.api.serializers import json_response, to_json_fields
from mes.api.services import services
from mes.embedding import Embedding, EmbeddingRequest, embed

# The shapes of `POST /v1/embeddings`, as marshmallow knows them and as clients see them.

MOST_INPUTS = 2048
_MOST_DIMENSIONS = 65_536


class Inputs(fields.Field[tuple[str, ...]]):
    """Texts: a list, or one alone."""

    shape = {
        "type": ["string", "array"],
        "minLength": 1,
        "items": {"type": "string", "minLength": 1},
        "minItems": 1,
        "maxItems": MOST_INPUTS,
    }
    default_error_messages = Text.default_error_messages

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            if not value:
                raise ValidationError("must not be empty")
            return (value,)
        if not isinstance(value, list):
            raise ValidationError("must be a string or a list of strings")
        _check_number(value)
        _check_each(value)
        return tuple(value)


def _check_number(texts: list[Any]) -> None:
    if not 1 <= len(texts) <= MOST_INPUTS:
        raise ValidationError(f"must hold 1 to {MOST_INPUTS} texts; this one holds {len(texts)}")


def _check_each(texts: list[Any]) -> None:
    if any(isinstance(each, int | list) and not isinstance(each, bool) for each in texts):
        raise ValidationError("must be text: the runtime takes no tokens")
    mistakes = {
        index: ["must be a string" if not isinstance(each, str) else "must not be empty"]
        for index, each in enumerate(texts)
        if not isinstance(each, str) or not each
    }
    if mistakes:
        raise ValidationError(mistakes)


class EmbeddingsRequestSchema(OpenAiRequestSchema):
    """`POST /v1/embeddings`. An optional field that is null counts as left out."""

    model = Text(required=True, validate=NOT_EMPTY)
    input = Inputs(required=True)
    encoding_format = Text(
        allow_none=True,
        validate=validate.OneOf(("float", "base64"), error="must be float or base64"),
    )
    dimensions = Whole(allow_none=True, validate=between(1, _MOST_DIMENSIONS))
    user = Text(allow_none=True)

    @post_load
    def _request(self, given: dict[str, Any], **kwargs: Any) -> EmbeddingRequest:
        return EmbeddingRequest(
            model_id=given["model"],
            texts=given["input"],
            dimensions=given.get("dimensions"),
            encoding=given.get("encoding_format") or "float",
        )


class VectorMember(fields.Raw):
    """A vector, in either encoding."""

    shape = {"type": ["array", "string"], "items": {"type": "number"}}


class EmbeddingItem(ResponseSchema):
    object = one_of(("embedding",), "")
    index = whole("which of the inputs it is of")
    embedding = member(VectorMember, "numbers, or float32 in little-endian order as base64")


class EmbeddingsUsage(ResponseSchema):
    """Tokens, as the runtime counted them."""

    prompt_tokens = whole("of all inputs together")
    total_tokens = whole("the same")


class EmbeddingsTimings(ResponseSchema):
    queue_ms = whole("waiting for a permit")
    load_ms = whole("waiting for the model to be loaded")
    embedding_ms = whole("in the runtime")
    total_ms = whole("from the request's arrival on")
    cold_start = flag("whether the model had to be loaded")


class EmbeddingsProvenance(ResponseSchema):
    """What is needed to make the same vectors again."""

    model_digest = text("", null=True)
    quantization = text("", null=True)
    runtime = text("", null=True)
    options = json_object("all that the runtime was told")
    mes_version = text("")


class EmbeddingsFacts(ResponseSchema):
    """What MES adds, which OpenAI's clients pass over."""

    request_id = text("under which the log tells more")
    timings = one(EmbeddingsTimings, "")
    provenance = one(EmbeddingsProvenance, "")


class EmbeddingsAnswer(ResponseSchema):
    object = one_of(("list",), "")
    data = many(EmbeddingItem, "a vector for each input, in the same order")
    model = text("as the catalog spells it")
    usage = one(EmbeddingsUsage, "")
    mes = one(EmbeddingsFacts, "")


# Embeddings: texts as vectors, asked for as OpenAI's clients do.

bp = Blueprint("embeddings", __name__, url_prefix="/v1")


@bp.post("/embeddings")
@auth.login_required
@request_body(EmbeddingsRequestSchema())
@documented(EmbeddingsAnswer, raises=RUN_ERRORS)
def create(request: EmbeddingRequest) -> Response:
    """Make a vector of each text."""
    own, said = services(), request_log()
    said.note(operation="embeddings", model=request.model_id[:200], inputs=len(request.texts))
    with own.client() as client:
        embedding = embed(
            request,
            catalog=own.catalog.current(),
            scheduler=own.scheduler,
            runtime=own.runtime,
            runtime_status=own.runtime_status.current(),
            client=client,
            request_id=said.request_id,
        )
    return json_response(_document(embedding, request.encoding, said))


def _document(embedding: Embedding, encoding: str, said: RequestLog) -> dict[str, Any]:
    tokens = embedding.vectors.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    facts = _facts(embedding, said.request_id)
    said.note(usage=usage, timings=facts["timings"])
    encode = _ENCODINGS[encoding]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(embedding.vectors.values)
        ],
        "model": embedding.model_id,
        "usage": usage,
        "mes": facts,
    }


def _facts(embedding: Embedding, request_id: str) -> dict[str, Any]:
    origin = embedding.provenance
    return {
        "request_id": request_id,
        "timings": to_json_fields(embedding.timings),
        "provenance": {
            "model_digest": origin.model_digest,
            "quantization": origin.quantization,
            "runtime": origin.runtime,
            "options": embedding.options,
            "mes_version": origin.mes_version,
        },
    }


def _as_numbers(vector: array[float]) -> orjson.Fragment:
    # Encoded one by one: as Python's numbers, all of them would take eight times the memory.
    return orjson.Fragment(orjson.dumps(vector.tolist()))


def _as_base64(vector: array[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_ENCODINGS = {"float": _as_numbers, "base64": _as_base64}
