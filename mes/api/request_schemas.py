"""Schemas of requests: generation parameters, inferences and schema checks."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from mes.api.request_fields import (
    LIST,
    NOT_EMPTY,
    Flag,
    Image,
    Number,
    Object,
    Seconds,
    Stops,
    Strict,
    Text,
    Think,
    Whole,
    between,
)
from mes.domain import InferenceRequest, Message

# Parameters of all requests for a generation.


class SamplingSchema(Strict):
    """How tokens are sampled, and how many."""

    temperature = Number(allow_none=True, validate=between(0, 2))
    max_tokens = Whole(allow_none=True, validate=between(1, 1_000_000))
    top_p = Number(allow_none=True, validate=between(0, 1))
    top_k = Whole(allow_none=True, validate=between(0, 1_000_000))
    min_p = Number(allow_none=True, validate=between(0, 1))
    seed = Whole(allow_none=True, validate=between(0, 2**31 - 1))
    stop = Stops(allow_none=True)
    repeat_penalty = Number(allow_none=True, validate=between(0, 2))
    presence_penalty = Number(allow_none=True, validate=between(-2, 2))
    frequency_penalty = Number(allow_none=True, validate=between(-2, 2))


class AttemptsSchema(Strict):
    """The number of attempts, constrained decoding and the timeout."""

    max_attempts = Whole(allow_none=True, validate=between(1, 4))
    constrain = Flag(allow_none=True)
    timeout = Seconds(allow_none=True)


# These options are passed to the runtime by the same name; the others are fields of
# InferenceRequest.
_OPTIONS = tuple(SamplingSchema(exclude=("temperature", "max_tokens")).fields)


def without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null; null means the same as an absent field."""
    return {name: value for name, value in values.items() if value is not None}


def sampling_options(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are passed to the runtime by the same name."""
    return {name: values[name] for name in _OPTIONS if name in values}


# Inference requests.

_ROLE = validate.OneOf(
    ("system", "user", "assistant", "tool"), error="must be system, user, assistant or tool"
)


class MessageSchema(Strict):
    """One message of a conversation."""

    error_messages = {"unknown": "is not a field of a message", "type": "must be a JSON object"}

    role = Text(required=True, validate=_ROLE)
    content = Text(required=True)
    images = fields.List(Image(), allow_none=True, error_messages=LIST)

    @post_load
    def _message(self, values: dict[str, Any], **kwargs: Any) -> Message:
        images = tuple(values.get("images") or ())
        return Message(values["role"], values["content"], images)


def require_question(messages: list[Message]) -> None:
    """Raise ValidationError for a conversation that does not end with a question to the model."""
    if not any(message.role == "user" for message in messages):
        raise ValidationError("must have a message of role user")
    if messages[-1].role not in ("user", "tool"):
        raise ValidationError("must end with a message of role user or tool")


def top_logprobs_count(values: dict[str, Any]) -> int | None:
    """Remove `logprobs` and `top_logprobs`, and return the number of likeliest tokens to report.

    Returns None if no probabilities are requested.
    """
    is_wanted: bool | None = values.pop("logprobs", None)
    count: int | None = values.pop("top_logprobs", None)
    if is_wanted is None:
        return count
    return (count or 0) if is_wanted else None


class QuestionSchema(Strict):
    """The model, the prompt or conversation, and the form of the answer."""

    model_id = Text(required=True, validate=NOT_EMPTY)
    prompt = Text(allow_none=True, validate=NOT_EMPTY)
    system_prompt = Text(allow_none=True)
    messages = fields.List(
        fields.Nested(MessageSchema),
        allow_none=True,
        validate=require_question,
        error_messages=LIST,
    )
    stream = Flag(allow_none=True)
    think = Think(allow_none=True)
    logprobs = Flag(allow_none=True)
    top_logprobs = Whole(allow_none=True, validate=between(0, 20))
    json_schema = Object(allow_none=True)


class InferenceRequestSchema(AttemptsSchema, SamplingSchema, QuestionSchema):
    """The body of `POST /v1/inference`. An optional field that is null counts as absent."""

    error_messages = {"unknown": "is not a field of this request", "type": "must be a JSON object"}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _check_prompt_or_messages(self, _: Any, values: dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(values, dict):
            return  # marshmallow reports this itself
        present = {name for name in ("prompt", "messages") if values.get(name) is not None}
        if not present:
            raise ValidationError("is required, unless there are messages", "prompt")
        if len(present) == 2:
            raise ValidationError("cannot be combined with prompt; send one of the two", "messages")
        if "messages" in present and values.get("system_prompt") is not None:
            mistake = "cannot be combined with messages; send a message of role system instead"
            raise ValidationError(mistake, "system_prompt")

    @post_load
    def _request(self, values: dict[str, Any], **kwargs: Any) -> InferenceRequest:
        values = without_nulls(values)
        sampling = sampling_options(values)
        timeout = values.pop("timeout", None)
        values["messages"] = tuple(values.get("messages", ()))
        values["top_logprobs"] = top_logprobs_count(values)
        direct = {name: value for name, value in values.items() if name not in sampling}
        return InferenceRequest(**direct, sampling=sampling, timeout_seconds=timeout)


class SchemaCheckSchema(Strict):
    """The body of `POST /v1/schemas/check`."""

    error_messages = InferenceRequestSchema.error_messages

    json_schema = Object(required=True)
    model_id = Text(allow_none=True, validate=NOT_EMPTY)
