"""Parameters that OpenAI's requests have in common, and what MES makes of them."""

from __future__ import annotations

from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields

from mes.api.fields import (
    MESSAGES,
    NOT_EMPTY,
    Flag,
    Number,
    Seconds,
    Stops,
    Text,
    Whole,
    between,
)
from mes.domain import InferenceRequest

UNKNOWN = {"unknown": "is not supported; leave it out", "type": "must be a JSON object"}

# As the use case calls them; the others have the same name there.
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


class Only(fields.Field[Any]):
    """A parameter with one value that can be served; left out or null, it is the same."""

    default_error_messages = MESSAGES

    def __init__(self, value: Any) -> None:
        super().__init__(allow_none=True)
        self.shape = {"enum": [value]}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        (only,) = self.shape["enum"]
        # True would pass for 1.
        if value != only or isinstance(value, bool) != isinstance(only, bool):
            raise ValidationError(f"is supported as {only} only; leave it out")
        return value


class StreamOptionsSchema(Schema):
    """`stream_options`."""

    class Meta:
        unknown = RAISE

    error_messages = UNKNOWN

    include_usage = Flag(allow_none=True)
    include_obfuscation = Only(False)


class OwnSchema(Schema):
    """`mes`: what OpenAI has no words for."""

    class Meta:
        unknown = RAISE

    error_messages = UNKNOWN

    max_attempts = Whole(allow_none=True, validate=between(1, 4))
    constrain = Flag(allow_none=True)
    timeout = Seconds(allow_none=True)


class Parameters(Schema):
    """What every generation takes."""

    class Meta:
        unknown = RAISE

    error_messages = UNKNOWN

    model = Text(required=True, validate=NOT_EMPTY)
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(StreamOptionsSchema, allow_none=True)
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
    n = Only(1)
    logit_bias = Only({})
    mes = fields.Nested(OwnSchema, allow_none=True)
    # Of no consequence for the answer.
    user = Text(allow_none=True)


def given_of(given: dict[str, Any]) -> dict[str, Any]:
    """What was said; null is as good as left out."""
    return {name: value for name, value in given.items() if value is not None}


def inference_of(given: dict[str, Any], **more: Any) -> InferenceRequest:
    """The request for an inference; `more` is what not every generation takes."""
    own = given_of(given.get("mes", {}))
    if given.get("stream") and own.get("max_attempts", 1) > 1:
        # Pieces of a second answer would run into the first.
        raise ValidationError({"mes": {"max_attempts": "goes without stream"}})
    return InferenceRequest(
        model_id=given["model"],
        stream=given.get("stream", False),
        temperature=given.get("temperature"),
        timeout_seconds=own.pop("timeout", None),
        sampling={name: given[name] for name in _SAMPLING if name in given},
        **own,
        **more,
    )


def wants_usage(given: dict[str, Any]) -> bool:
    """Whether a stream ends with its usage."""
    return bool(given.get("stream_options", {}).get("include_usage"))
