"""Request schemas: kinds of fields, parameters of generations, and inferences."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from marshmallow import (
    RAISE,
    Schema,
    ValidationError,
    fields,
    post_load,
    validate,
    validates_schema,
)

from mes.api.request_lists import MAX_IMAGES, MAX_MESSAGES, Items
from mes.api.services import get_services
from mes.domain import InferenceRequest, Message
from mes.errors import format_number

# Kinds of request fields, which load JSON values strictly, without conversions.

MESSAGES: dict[str, Any] = {
    "required": "is required",
    "null": "must not be null",
    "invalid": "has the wrong type",
}


class Strict(Schema):
    """A schema that refuses unknown fields; each subclass has its own message for them."""

    class Meta:
        unknown = RAISE


class Text(fields.String):
    default_error_messages = {**MESSAGES, "invalid": "must be a string"}


class Whole(fields.Integer):
    """An integer: 5, or 5.0 as in JSON Schema, but not "5", 5.5 or true."""

    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError("must be a whole number")
        return value


class Number(fields.Float):
    """A number: 0.5 or 5, but not "0.5" or true."""

    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number")
        return float(value)


class Seconds(Number):
    """A duration in seconds, at most `MAX_TIMEOUT`."""

    @property
    def shape(self) -> dict[str, Any]:
        return {"exclusiveMinimum": 0, "maximum": get_services().settings.max_timeout_seconds}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        seconds, maximum = super()._deserialize(value, *args, **kwargs), self.shape["maximum"]
        if not 0 < seconds <= maximum:
            raise ValidationError(
                f"must be more than 0 and at most {format_number(maximum)} seconds"
            )
        return seconds


class Flag(fields.Boolean):
    """true or false; strings and numbers are refused."""

    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Object(fields.Field[dict[str, Any]]):
    """A JSON object, loaded unchanged."""

    shape = {"type": "object"}
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("must be a JSON object")
        return value


class Stops(fields.Field[list[str]]):
    """Strings that end the answer: a list, or one string."""

    shape = {
        "type": ["string", "array"],
        "minLength": 1,
        "items": {"type": "string", "minLength": 1},
        "minItems": 1,
        "maxItems": 16,
    }
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        is_valid = isinstance(stops, list) and all(isinstance(s, str) and s for s in stops)
        if not is_valid or not 1 <= len(stops) <= 16:
            raise ValidationError("must be a string or a list of 1 to 16 strings, none empty")
        return stops


class Think(fields.Field[bool | str]):
    """Whether a reasoning model thinks before its answer, or how much."""

    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool) and value not in ("low", "medium", "high"):
            raise ValidationError('must be true, false, "low", "medium" or "high"')
        return value


class Image(Text):
    """An image in base64, loaded unchanged."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        try:
            decoded = b64decode(text, validate=True)
        except ValueError:
            decoded = b""
        if not decoded:
            raise ValidationError("must be an image in base64, without a `data:` prefix")
        return text


def between(low: float, high: float) -> validate.Range:
    return validate.Range(
        low, high, error=f"must be between {format_number(low)} and {format_number(high)}"
    )


NOT_EMPTY = validate.Length(min=1, error="must not be empty")


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
    images = Items(Image(), most=MAX_IMAGES, allow_none=True)

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
    messages = Items(
        fields.Nested(MessageSchema),
        most=MAX_MESSAGES,
        allow_none=True,
        validate=require_question,
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
