"""Kinds of request fields, which load JSON values strictly, without conversions."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from mes.api.services import get_services

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
            raise ValidationError(f"must be more than 0 and at most {maximum:g} seconds")
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
    return validate.Range(low, high, error=f"must be between {low:g} and {high:g}")


NOT_EMPTY = validate.Length(min=1, error="must not be empty")
LIST = {**MESSAGES, "invalid": "must be a list"}
