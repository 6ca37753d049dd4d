"""The shapes of requests and answers, as marshmallow knows them and as clients see them."""

from __future__ import annotations

from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, post_load, validate, validates

from mes.api.services import services
from mes.domain import InferenceRequest

_MESSAGES: dict[str, Any] = {
    "required": "is required",
    "null": "must not be null",
    "invalid": "has the wrong type",
}


class Text(fields.String):
    default_error_messages = {**_MESSAGES, "invalid": "must be a string"}


class Whole(fields.Integer):
    """An integer: 5, or 5.0 as JSON Schema has it, but not "5", 5.5 or true."""

    default_error_messages = _MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValidationError("must be a whole number")
        return value


class Number(fields.Float):
    """A number: 0.5 or 5, but not "0.5" or true."""

    default_error_messages = _MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number")
        return float(value)


class Seconds(Number):
    """A duration, up to the longest timeout that may be set."""

    @property
    def shape(self) -> dict[str, Any]:
        return {"exclusiveMinimum": 0, "maximum": services().settings.max_timeout_seconds}


class Flag(fields.Boolean):
    """true or false, and nothing that might be meant so."""

    default_error_messages = _MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Object(fields.Field[dict[str, Any]]):
    """A JSON object, as it is."""

    shape = {"type": "object"}
    default_error_messages = _MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("must be a JSON object")
        return value


class Stops(fields.Field[list[str]]):
    """Strings that end the answer: a list, or one alone."""

    shape = {
        "type": ["string", "array"],
        "minLength": 1,
        "items": {"type": "string", "minLength": 1},
        "minItems": 1,
        "maxItems": 16,
    }
    default_error_messages = _MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        good = isinstance(stops, list) and all(isinstance(s, str) and s for s in stops)
        if not good or not 1 <= len(stops) <= 16:
            raise ValidationError("must be a string or a list of 1 to 16 strings, none empty")
        return stops


def _between(low: float, high: float) -> validate.Range:
    return validate.Range(low, high, error=f"must be between {low:g} and {high:g}")


_NOT_EMPTY = validate.Length(min=1, error="must not be empty")

# The runtime knows these by the same names.
_SAMPLING = (
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)


class InferenceRequestSchema(Schema):
    """`POST /v1/inference`. An optional field that is null counts as left out."""

    class Meta:
        unknown = RAISE

    error_messages = {"unknown": "is not a field of this request", "type": "must be a JSON object"}

    model_id = Text(required=True, validate=_NOT_EMPTY)
    prompt = Text(required=True, validate=_NOT_EMPTY)
    system_prompt = Text(allow_none=True)
    temperature = Number(allow_none=True, validate=_between(0, 2))
    max_tokens = Whole(allow_none=True, validate=_between(1, 1_000_000))
    top_p = Number(allow_none=True, validate=_between(0, 1))
    top_k = Whole(allow_none=True, validate=_between(0, 1_000_000))
    min_p = Number(allow_none=True, validate=_between(0, 1))
    seed = Whole(allow_none=True, validate=_between(0, 2**31 - 1))
    stop = Stops(allow_none=True)
    repeat_penalty = Number(allow_none=True, validate=_between(0, 2))
    presence_penalty = Number(allow_none=True, validate=_between(-2, 2))
    frequency_penalty = Number(allow_none=True, validate=_between(-2, 2))
    json_schema = Object(allow_none=True)
    max_attempts = Whole(allow_none=True, validate=_between(1, 4))
    constrain = Flag(allow_none=True)
    timeout = Seconds(allow_none=True)

    @validates("timeout")
    def _timeout_is_possible(self, seconds: float | None, **kwargs: Any) -> None:
        most = services().settings.max_timeout_seconds
        if seconds is not None and not 0 < seconds <= most:
            raise ValidationError(f"must be more than 0 and at most {most:g} seconds")

    @post_load
    def _request(self, given: dict[str, Any], **kwargs: Any) -> InferenceRequest:
        given = {name: value for name, value in given.items() if value is not None}
        sampling = {name: given.pop(name) for name in _SAMPLING if name in given}
        timeout = given.pop("timeout", None)
        return InferenceRequest(**given, sampling=sampling, timeout_seconds=timeout)


class SchemaCheckSchema(Schema):
    """`POST /v1/schemas/check`."""

    class Meta:
        unknown = RAISE

    error_messages = InferenceRequestSchema.error_messages

    json_schema = Object(required=True)
    model_id = Text(allow_none=True, validate=_NOT_EMPTY)
