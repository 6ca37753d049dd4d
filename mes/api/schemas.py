"""What requests may hold, as marshmallow knows it."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from mes.api.fields import LIST, NOT_EMPTY, Flag, Image, Object, Strict, Text, Think, Whole, between
from mes.api.sampling import AttemptsSchema, SamplingSchema, given_of, sampling_of
from mes.domain import InferenceRequest, Message

_ROLE = validate.OneOf(
    ("system", "user", "assistant", "tool"), error="must be system, user, assistant or tool"
)


class MessageSchema(Strict):
    """One turn of a conversation."""

    error_messages = {"unknown": "is not a field of a message", "type": "must be a JSON object"}

    role = Text(required=True, validate=_ROLE)
    content = Text(required=True)
    images = fields.List(Image(), allow_none=True, error_messages=LIST)

    @post_load
    def _message(self, given: dict[str, Any], **kwargs: Any) -> Message:
        images = tuple(given.get("images") or ())
        return Message(given["role"], given["content"], images)


def asks_something(turns: list[Message]) -> None:
    if not any(turn.role == "user" for turn in turns):
        raise ValidationError("must have a message of role user")
    if turns[-1].role not in ("user", "tool"):
        raise ValidationError("must end with a message of role user or tool")


def likeliest(given: dict[str, Any]) -> int | None:
    """How many tokens to tell at each place, taken out of what was given; None for nothing."""
    wanted: bool | None = given.pop("logprobs", None)
    most: int | None = given.pop("top_logprobs", None)
    if wanted is None:
        return most
    return (most or 0) if wanted else None


class QuestionSchema(Strict):
    """Who is asked, what, and what the answer has to be."""

    model_id = Text(required=True, validate=NOT_EMPTY)
    prompt = Text(allow_none=True, validate=NOT_EMPTY)
    system_prompt = Text(allow_none=True)
    messages = fields.List(
        fields.Nested(MessageSchema),
        allow_none=True,
        validate=asks_something,
        error_messages=LIST,
    )
    stream = Flag(allow_none=True)
    think = Think(allow_none=True)
    logprobs = Flag(allow_none=True)
    top_logprobs = Whole(allow_none=True, validate=between(0, 20))
    json_schema = Object(allow_none=True)


class InferenceRequestSchema(AttemptsSchema, SamplingSchema, QuestionSchema):
    """`POST /v1/inference`. An optional field that is null counts as left out."""

    error_messages = {"unknown": "is not a field of this request", "type": "must be a JSON object"}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _one_way_to_ask(self, _: Any, given: dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(given, dict):
            return  # told as such
        said = {name for name in ("prompt", "messages") if given.get(name) is not None}
        if not said:
            raise ValidationError("is required, or messages", "prompt")
        if len(said) == 2:
            raise ValidationError("goes without prompt; send one of the two", "messages")
        if "messages" in said and given.get("system_prompt") is not None:
            mistake = "goes with prompt; with messages, send one of role system"
            raise ValidationError(mistake, "system_prompt")

    @post_load
    def _request(self, given: dict[str, Any], **kwargs: Any) -> InferenceRequest:
        given = given_of(given)
        sampling = sampling_of(given)
        timeout = given.pop("timeout", None)
        given["messages"] = tuple(given.get("messages", ()))
        given["top_logprobs"] = likeliest(given)
        own = {name: value for name, value in given.items() if name not in sampling}
        return InferenceRequest(**own, sampling=sampling, timeout_seconds=timeout)


class SchemaCheckSchema(Strict):
    """`POST /v1/schemas/check`."""

    error_messages = InferenceRequestSchema.error_messages

    json_schema = Object(required=True)
    model_id = Text(allow_none=True, validate=NOT_EMPTY)
