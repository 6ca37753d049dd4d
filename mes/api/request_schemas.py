"""Request schemas: kinds of fields, and parameters of all requests for a generation."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from marshmallow import (
    RAISE,
    Schema,
    ValidationError,
    fields,
    validate,
)

from mes.api.services import get_services
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


class Seed(Whole):
    """A seed of 64 bits. Loads as one of the runtime's 31 bits, or as -1 for a random one.

    Seeds outside of 31 bits are taken modulo 2**31, so equal seeds give equal seeds.
    """

    shape = {"minimum": -(2**63), "maximum": 2**63 - 1}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        seed = super()._deserialize(value, *args, **kwargs)
        if not self.shape["minimum"] <= seed <= self.shape["maximum"]:
            raise ValidationError("must be a whole number of 64 bits, or -1 for a random seed")
        return seed if seed == -1 else seed % 2**31


class TopK(Whole):
    """A number of tokens to sample from. 0 and -1 mean all tokens; loads as 0 then."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        count = super()._deserialize(value, *args, **kwargs)
        return 0 if count == -1 else count


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


class OnlyValue(fields.Field[Any]):
    """A parameter of which a few values are supported; null or absent means the first of them."""

    default_error_messages = MESSAGES

    def __init__(self, *values: Any) -> None:
        super().__init__(allow_none=True)
        self._supported = values
        self.shape = {"enum": [*(each for each in values if each is not None), None]}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        # In Python, True equals 1.
        if not any(
            value == each and isinstance(value, bool) == isinstance(each, bool)
            for each in self._supported
        ):
            supported = json.dumps(self._supported[0])
            raise ValidationError(f"is supported as {supported} only; leave it out")
        return value


MOST_STOPS = 64


class Stops(fields.Field[list[str] | None]):
    """Strings that end the answer: a list, or one string. An empty list means the same as null."""

    shape = {
        "type": ["string", "array"],
        "minLength": 1,
        "items": {"type": "string", "minLength": 1},
        "maxItems": MOST_STOPS,
    }
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
            raise ValidationError("must be a string or a list of strings, none empty")
        if len(stops) > MOST_STOPS:
            raise ValidationError(f"must have at most {MOST_STOPS} strings; it has {len(stops)}")
        return stops or None


THINK_LEVELS = ("low", "medium", "high", "max")


class Think(fields.Field[bool | str]):
    """Whether a reasoning model thinks before its answer, or how much."""

    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool) and value not in THINK_LEVELS:
            raise ValidationError('must be true, false, "low", "medium", "high" or "max"')
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
    top_k = TopK(allow_none=True, validate=between(-1, 1_000_000))
    min_p = Number(allow_none=True, validate=between(0, 1))
    seed = Seed(allow_none=True)
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


def top_logprobs_count(values: dict[str, Any]) -> int | None:
    """Remove `logprobs` and `top_logprobs`, and return the number of likeliest tokens to report.

    Returns None if no probabilities are requested.
    """
    is_wanted: bool | None = values.pop("logprobs", None)
    count: int | None = values.pop("top_logprobs", None)
    if is_wanted is None:
        return count
    return (count or 0) if is_wanted else None
