"""Request schema of `POST /v1/inference`."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load, validates_schema

from mes.api.ignored_fields import ignored_names
from mes.api.messages import MessageSchema, with_tool_names
from mes.api.request_lists import MAX_MESSAGES, Items
from mes.api.request_schemas import (
    NOT_EMPTY,
    AttemptsSchema,
    Flag,
    Object,
    SamplingSchema,
    Strict,
    Text,
    Think,
    Whole,
    between,
    sampling_options,
    top_logprobs_count,
    without_nulls,
)
from mes.api.tool_schemas import ToolChoiceField, Tools, check_tool_choice, unused_format
from mes.domain import InferenceRequest


class QuestionSchema(Strict):
    """The model, the prompt or conversation, and the form of the answer."""

    model_id = Text(required=True, validate=NOT_EMPTY)
    prompt = Text(allow_none=True, validate=NOT_EMPTY)
    system_prompt = Text(allow_none=True)
    messages = Items(
        fields.Nested(MessageSchema), most=MAX_MESSAGES, allow_none=True, validate=NOT_EMPTY
    )
    stream = Flag(allow_none=True)
    think = Think(allow_none=True)
    logprobs = Flag(allow_none=True)
    top_logprobs = Whole(allow_none=True, validate=between(0, 20))
    json_schema = Object(allow_none=True)
    tools = Tools()
    tool_choice = ToolChoiceField(allow_none=True)
    parallel_tool_calls = Flag(allow_none=True)


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

    @post_load(pass_original=True)
    def _request(
        self, values: dict[str, Any], document: dict[str, Any], **kwargs: Any
    ) -> InferenceRequest:
        values = without_nulls(values)
        check_tool_choice(values)
        sampling = sampling_options(values)
        timeout = values.pop("timeout", None)
        values["messages"] = with_tool_names(values.get("messages", ()))
        values["tools"] = tuple(values.get("tools", ()))
        values["top_logprobs"] = top_logprobs_count(values)
        direct = {name: value for name, value in values.items() if name not in sampling}
        return InferenceRequest(
            **direct,
            sampling=sampling,
            timeout_seconds=timeout,
            ignored=(*ignored_names(self, document), *unused_format(values, "json_schema")),
        )
