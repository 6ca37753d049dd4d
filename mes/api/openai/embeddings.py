"""Embeddings: texts as vectors, asked for as OpenAI's clients do."""

from __future__ import annotations

import struct
from array import array
from base64 import b64encode
from typing import Any

import orjson
from flask import Blueprint, Response

from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.body import body
from mes.api.dumps import members
from mes.api.openai.embeddings_schemas import EmbeddingsAnswer, EmbeddingsRequestSchema
from mes.api.promises import RUN_ERRORS, promises
from mes.api.requests import Line, line
from mes.api.services import services
from mes.embedding import Embedding, EmbeddingRequest, embed

bp = Blueprint("embeddings", __name__, url_prefix="/v1")


@bp.post("/embeddings")
@auth.login_required
@body(EmbeddingsRequestSchema())
@promises(EmbeddingsAnswer, raises=RUN_ERRORS)
def create(request: EmbeddingRequest) -> Response:
    """Make a vector of each text."""
    own, said = services(), line()
    said.note(operation="embeddings", model=request.model_id[:200], inputs=len(request.texts))
    with own.caller() as caller:
        embedding = embed(
            request,
            catalog=own.catalog.current(),
            scheduler=own.scheduler,
            runtime=own.runtime,
            runtime_status=own.runtime_status.current(),
            caller=caller,
            request_id=said.request_id,
        )
    return answer(_document(embedding, request.encoding, said))


def _document(embedding: Embedding, encoding: str, said: Line) -> dict[str, Any]:
    tokens = embedding.vectors.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    facts = _facts(embedding, said.request_id)
    said.note(usage=usage, timings=facts["timings"])
    encode = _ENCODINGS[encoding]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(embedding.vectors.each)
        ],
        "model": embedding.model_id,
        "usage": usage,
        "mes": facts,
    }


def _facts(embedding: Embedding, request_id: str) -> dict[str, Any]:
    origin = embedding.provenance
    return {
        "request_id": request_id,
        "timings": members(embedding.timings),
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
