"""`POST /v1/embeddings`."""

from __future__ import annotations

import struct
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import orjson
from flask import Blueprint, Response
from marshmallow import ValidationError, fields, post_load, validate

from mes.api.auth import auth
from mes.api.ignored_fields import Ignored, ignored_names
from mes.api.middleware import RequestLog, request_log
from mes.api.openai.common import OpenAiRequestSchema
from mes.api.operation_docs import RUN_ERRORS, documented
from mes.api.request_body import request_body
from mes.api.request_schemas import NOT_EMPTY, Text, Whole, between
from mes.api.response_fields import (
    Document,
    ResponseSchema,
    constant,
    field,
    integer,
    json_response,
    nested,
    nested_list,
    string,
    strings,
)
from mes.api.response_schemas import RuntimeProvenanceSchema, WaitTimingsSchema
from mes.api.services import get_services
from mes.embedding import Embedding, EmbeddingRequest, embed

MOST_INPUTS = 2048
_MOST_DIMENSIONS = 65_536

bp = Blueprint("embeddings", __name__, url_prefix="/v1")

# Requests.


class Inputs(fields.Field[tuple[str, ...]]):
    """A list of texts, or one text."""

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
        raise ValidationError(f"must have 1 to {MOST_INPUTS} texts; this list has {len(texts)}")


def _check_each(texts: list[Any]) -> None:
    if any(isinstance(each, int | list) and not isinstance(each, bool) for each in texts):
        raise ValidationError("must be text: token arrays are not supported")
    mistakes = {
        index: ["must be a string" if not isinstance(each, str) else "must not be empty"]
        for index, each in enumerate(texts)
        if not isinstance(each, str) or not each
    }
    if mistakes:
        raise ValidationError(mistakes)


class EmbeddingsRequestSchema(OpenAiRequestSchema):
    """The body of `POST /v1/embeddings`. An optional field that is null counts as absent."""

    model = Text(required=True, validate=NOT_EMPTY)
    input = Inputs(required=True)
    encoding_format = Text(
        allow_none=True,
        validate=validate.OneOf(("float", "base64"), error="must be float or base64"),
    )
    dimensions = Whole(allow_none=True, validate=between(1, _MOST_DIMENSIONS))
    user = Ignored()

    @post_load(pass_original=True)
    def _request(
        self, values: dict[str, Any], document: dict[str, Any], **kwargs: Any
    ) -> EmbeddingRequest:
        return EmbeddingRequest(
            model_id=values["model"],
            texts=values["input"],
            dimensions=values.get("dimensions"),
            encoding=values.get("encoding_format") or "float",
            ignored=ignored_names(self, document),
        )


# Responses.


class VectorField(fields.Raw):
    """A vector in either encoding."""

    shape = {"type": ["array", "string"], "items": {"type": "number"}}


class EmbeddingItem(ResponseSchema):
    """One vector."""

    object = constant("embedding", "Always `embedding`.")
    index = integer("Index of the text in `input`.")
    embedding = field(VectorField, "The vector: numbers, or little-endian float32 in base64.")


class EmbeddingsUsage(ResponseSchema):
    """Numbers of tokens, as counted by the runtime."""

    prompt_tokens = integer("Tokens of all texts.")
    total_tokens = integer("The same as `prompt_tokens`.", source="prompt_tokens")


class EmbeddingsTimings(WaitTimingsSchema):
    """Durations of a request for embeddings."""

    embedding_ms = integer("Time the runtime took to make the vectors, in milliseconds.")
    total_ms = integer("Time from the request's arrival to its response, in milliseconds.")


class EmbeddingsProvenance(RuntimeProvenanceSchema):
    """The facts that are needed to make the same vectors again."""


class EmbeddingsFacts(ResponseSchema):
    """The fields that MES adds to OpenAI's API."""

    request_id = string("The request's `X-Request-ID`, which the log has too.")
    timings = nested(EmbeddingsTimings, "Durations of the request.")
    provenance = nested(
        EmbeddingsProvenance, "The facts that are needed to make the same vectors again."
    )
    ignored = strings(
        "Parameters of the request that had no effect; absent if there are none.", required=False
    )


class EmbeddingsAnswer(ResponseSchema):
    """The response to `POST /v1/embeddings`."""

    object = constant("list", "Always `list`.")
    data = nested_list(EmbeddingItem, "A vector for each text, in the order of `input`.")
    model = string("Id of the model in the catalog.")
    usage = nested(EmbeddingsUsage, "Tokens of all texts.")
    mes = nested(EmbeddingsFacts, "Fields that MES adds to OpenAI's API.")


@bp.post("/embeddings")
@auth.login_required
@request_body(EmbeddingsRequestSchema())
@documented(EmbeddingsAnswer, raises=RUN_ERRORS)
def create(request: EmbeddingRequest) -> Response:
    """Make a vector of each text."""
    services, log = get_services(), request_log()
    log.add_fields(operation="embeddings", model=request.model_id[:200], inputs=len(request.texts))
    with services.client() as client:
        embedding = embed(
            request,
            catalog=services.catalog.current(),
            scheduler=services.scheduler,
            runtime=services.runtime,
            runtime_status=services.known_runtime_status(),
            versions=services.versions,
            client=client,
            request_id=log.request_id,
        )
    return json_response(_answer(embedding, request, log))


def _answer(embedding: Embedding, request: EmbeddingRequest, log: RequestLog) -> Document:
    usage = EmbeddingsUsage.serialize(embedding.vectors)
    timings = EmbeddingsTimings.serialize(embedding.timings)
    provenance = EmbeddingsProvenance.serialize(embedding)
    log.add_fields(usage=usage, timings=timings)
    ignored = {"ignored": list(request.ignored)} if request.ignored else {}
    return EmbeddingsAnswer.build(
        object="list",
        data=_items(embedding, _ENCODINGS[request.encoding]),
        model=embedding.model_id,
        usage=usage,
        mes=EmbeddingsFacts.build(
            request_id=log.request_id, timings=timings, provenance=provenance, **ignored
        ),
    )


def _items(embedding: Embedding, encode: Callable[[array[float]], Any]) -> list[Document]:
    return [
        EmbeddingItem.build(object="embedding", index=index, embedding=encode(vector))
        for index, vector in enumerate(embedding.vectors.values)
    ]


def _as_numbers(vector: array[float]) -> orjson.Fragment:
    # Encoded one vector at a time: as Python floats, all of them would take eight times the memory.
    return orjson.Fragment(orjson.dumps(vector.tolist()))


def _as_base64(vector: array[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_ENCODINGS: dict[str, Callable[[array[float]], Any]] = {
    "float": _as_numbers,
    "base64": _as_base64,
}
