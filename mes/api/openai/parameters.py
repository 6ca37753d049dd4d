"""Parameters that OpenAI's requests have in common, and what MES makes of them."""

from __future__ import annotations

import json
from typing import Any

from marshmallow import ValidationError, fields

from mes.api.fields import MESSAGES, NOT_EMPTY, Flag, Strict, Text
from mes.api.sampling import AttemptsSchema, SamplingSchema, given_of, sampling_of
from mes.domain import InferenceRequest


class Known(Strict):
    """A part of a request; whatever else stands in it is not dropped in silence."""

    error_messages = {"unknown": "is not supported; leave it out", "type": "must be a JSON object"}


class Only(fields.Field[Any]):
    """A parameter with one value that can be served; left out or null, it is the same."""

    default_error_messages = MESSAGES

    def __init__(self, value: Any) -> None:
        super().__init__(allow_none=True)
        self._only = value
        self.shape = {"enum": [None] if value is None else [value, None]}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        # True would pass for 1.
        if value != self._only or isinstance(value, bool) != isinstance(self._only, bool):
            raise ValidationError(f"is supported as {json.dumps(self._only)} only; leave it out")
        return value


class StreamOptionsSchema(Known):
    """`stream_options`."""

    include_usage = Flag(allow_none=True)
    include_obfuscation = Only(False)


class OwnSchema(AttemptsSchema, Known):
    """`mes`: what OpenAI has no words for."""


class AddressSchema(Known):
    """Who is asked, and how the answer is to come."""

    model = Text(required=True, validate=NOT_EMPTY)
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(StreamOptionsSchema, allow_none=True)


# Its fields come after those of its bases, and theirs from behind.
class Parameters(SamplingSchema, AddressSchema):
    """What every generation takes."""

    n = Only(1)
    logit_bias = Only({})
    mes = fields.Nested(OwnSchema, allow_none=True)
    # Of no consequence for the answer.
    user = Text(allow_none=True)


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
        sampling=sampling_of(given),
        **own,
        **more,
    )


def wants_usage(given: dict[str, Any]) -> bool:
    """Whether a stream ends with its usage."""
    return bool(given.get("stream_options", {}).get("include_usage"))
