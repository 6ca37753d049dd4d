"""The shapes of `POST /v1/embeddings`, as marshmallow knows them and as clients see them."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from mes.api.fields import NOT_EMPTY, Text, Whole, between
from mes.api.members import Answer, flag, json_object, many, member, one, one_of, text, whole
from mes.api.openai.parameters import Known
from mes.embedding import EmbeddingRequest

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


class EmbeddingsRequestSchema(Known):
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


class EmbeddingItem(Answer):
    object = one_of(("embedding",), "")
    index = whole("which of the inputs it is of")
    embedding = member(VectorMember, "numbers, or float32 in little-endian order as base64")


class EmbeddingsUsage(Answer):
    """Tokens, as the runtime counted them."""

    prompt_tokens = whole("of all inputs together")
    total_tokens = whole("the same")


class EmbeddingsTimings(Answer):
    queue_ms = whole("waiting for a permit")
    load_ms = whole("waiting for the model to be loaded")
    embedding_ms = whole("in the runtime")
    total_ms = whole("from the request's arrival on")
    cold_start = flag("whether the model had to be loaded")


class EmbeddingsProvenance(Answer):
    """What is needed to make the same vectors again."""

    model_digest = text("", null=True)
    quantization = text("", null=True)
    runtime = text("", null=True)
    options = json_object("all that the runtime was told")
    mes_version = text("")


class EmbeddingsFacts(Answer):
    """What MES adds, which OpenAI's clients pass over."""

    request_id = text("under which the log tells more")
    timings = one(EmbeddingsTimings, "")
    provenance = one(EmbeddingsProvenance, "")


class EmbeddingsAnswer(Answer):
    object = one_of(("list",), "")
    data = many(EmbeddingItem, "a vector for each input, in the same order")
    model = text("as the catalog spells it")
    usage = one(EmbeddingsUsage, "")
    mes = one(EmbeddingsFacts, "")
