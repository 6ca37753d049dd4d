"""Schemas of requests to `POST /v1/completions`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load

from mes.api.ignored_fields import ignored_names
from mes.api.openai.common import (
    ChoicesRequest,
    Parameters,
    choices_of,
    inference_of,
    wants_running_usage,
    wants_usage,
)
from mes.api.request_schemas import MESSAGES, OnlyValue, Whole, between, without_nulls
from mes.api.services import get_services
from mes.domain import InferenceRequest

_LARGEST_ID = 2**31 - 1

Prompt = str | tuple[int, ...]
"""A text or token ids."""


class Prompts(fields.Field[list[Prompt]]):
    """A text or a list of token ids, or a list of several of them; loads as a list."""

    shape: ClassVar[dict[str, Any]] = {
        "type": ["string", "array"],
        "minLength": 1,
        "minItems": 1,
        "items": {"type": ["string", "integer", "array"], "items": {"type": "integer"}},
    }
    default_error_messages = MESSAGES

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[Prompt]:
        prompts = value if isinstance(value, list) else [value]
        if all(map(_is_whole, prompts)):
            prompts = [prompts]
        if not all(prompts):
            raise ValidationError("must not be empty, nor contain an empty prompt")
        if all(isinstance(prompt, str) for prompt in prompts):
            return prompts
        if all(map(_is_list_of_ids, prompts)):
            return list(map(tuple, prompts))
        raise ValidationError(
            "must be a text or a list of texts, or a list of token ids (whole numbers from 0 to "
            f"{_LARGEST_ID}) or a list of such lists"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_is_whole(i) and 0 <= i <= _LARGEST_ID for i in value)


class CompletionRequestSchema(Parameters):
    """The body of `POST /v1/completions`."""

    prompt = Prompts(required=True)
    logprobs = Whole(allow_none=True, validate=between(0, 20))
    best_of = Whole(allow_none=True)
    echo = OnlyValue(False)
    suffix = OnlyValue(None, "")

    @post_load(pass_original=True)
    def _request(
        self, values: dict[str, Any], document: dict[str, Any], **kwargs: Any
    ) -> ChoicesRequest:
        values = without_nulls(values)
        _refuse_selection(values)
        _refuse_too_many(len(values["prompt"]), values)
        inference = inference_of(
            values,
            top_logprobs=values.get("logprobs"),
            ignored=ignored_names(self, document),
        )
        choices = [
            choice
            for prompt in values["prompt"]
            for choice in choices_of(_with_prompt(inference, prompt), values)
        ]
        return ChoicesRequest(choices, wants_usage(values), wants_running_usage(values))


def _with_prompt(inference: InferenceRequest, prompt: Prompt) -> InferenceRequest:
    if isinstance(prompt, str):
        return replace(inference, prompt=prompt)
    return replace(inference, prompt_tokens=prompt)


def _refuse_selection(values: dict[str, Any]) -> None:
    if values.get("best_of", 1) not in (1, values.get("n", 1)):
        mistake = "is supported as 1 or n only; ask for all of them with n, and choose among them"
        raise ValidationError(mistake, "best_of")


def _refuse_too_many(prompts: int, values: dict[str, Any]) -> None:
    generations = prompts * values.get("n", 1)
    limit = get_services().settings.max_generations
    if generations > limit:
        raise ValidationError(
            f"asks for {generations} generations, more than {limit} (MAX_GENERATIONS); send fewer "
            "prompts in each of several requests, or raise MAX_GENERATIONS",
            "prompt",
        )
