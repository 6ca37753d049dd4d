"""Parts that the requests and responses of OpenAI's endpoints share."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields

from mes.api.choices import ChoiceChunks, repeat, run_choices, stream_choices
from mes.api.ignored_fields import Ignored
from mes.api.inference import run_blocking, run_streaming
from mes.api.inference_responses import InferenceOutcome
from mes.api.middleware import request_log
from mes.api.openai.error_format import to_openai_error
from mes.api.openai.openai_schemas import ChoiceFacts, OwnFacts
from mes.api.openai.other_parameters import OtherParameters, with_own_names, without_end
from mes.api.openai.running_usage import RunningUsage
from mes.api.operation_docs import EVENT_STREAM
from mes.api.request_schemas import (
    NOT_EMPTY,
    AttemptsSchema,
    Flag,
    OnlyValue,
    SamplingSchema,
    Strict,
    Text,
    Whole,
    sampling_options,
    without_nulls,
)
from mes.api.response_fields import Document, ResponseSchema
from mes.api.response_schemas import UsageSchema
from mes.api.services import get_services
from mes.api.streaming import Documents, Encoder, StreamingResponse
from mes.domain import InferenceRequest, total_usage

# Requests.


class OpenAiRequestSchema(Strict):
    """A part of a request.

    A parameter that would change the answer is honoured or refused. Parameters that change nothing
    are declared as `Ignored`, and the response lists them.
    """

    error_messages = {"unknown": "is not supported; leave it out", "type": "must be a JSON object"}


class StreamOptionsSchema(OpenAiRequestSchema):
    """`stream_options`."""

    include_usage = Flag(allow_none=True)
    continuous_usage_stats = Flag(allow_none=True)
    include_obfuscation = Ignored()


class MesOptionsSchema(AttemptsSchema, OpenAiRequestSchema):
    """`mes`: the parameters that OpenAI's API has no place for."""

    component_name = "Own"


class AddressSchema(OpenAiRequestSchema):
    """The model, and whether the response is a stream."""

    model = Text(required=True, validate=NOT_EMPTY)
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(StreamOptionsSchema, allow_none=True)


class ChoiceCount(Whole):
    """A number of choices, at most `MAX_CHOICES`."""

    @property
    def shape(self) -> dict[str, Any]:
        return {"minimum": 1, "maximum": get_services().settings.max_choices}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        count, maximum = super()._deserialize(value, *args, **kwargs), self.shape["maximum"]
        if count < 1:
            raise ValidationError("must be at least 1")
        if count > maximum:
            remedy = "ask for fewer choices in each of several requests, or raise MAX_CHOICES"
            raise ValidationError(f"must be at most {maximum} (MAX_CHOICES); {remedy}")
        return count


# marshmallow puts the fields of the last base first.
class Parameters(OtherParameters, SamplingSchema, AddressSchema):
    """The parameters of all generations."""

    n = ChoiceCount(allow_none=True)
    logit_bias = OnlyValue({})
    mes = fields.Nested(MesOptionsSchema, allow_none=True)
    user = Ignored()
    metadata = Ignored()
    store = Ignored()
    service_tier = Ignored()
    verbosity = Ignored()
    prediction = Ignored()
    safety_identifier = Ignored()
    prompt_cache_key = Ignored()
    prompt_cache_retention = Ignored()


def inference_of(values: dict[str, Any], **more: Any) -> InferenceRequest:
    """Return the inference request of these parameters; `more` are further fields of it."""
    values = with_own_names(values)
    options = without_nulls(values.get("mes", {}))
    if values.get("stream") and options.get("max_attempts", 1) > 1:
        # A chunk cannot name its attempt, so two answers would run into one.
        raise ValidationError({"mes": {"max_attempts": "cannot be combined with stream"}})
    request = InferenceRequest(
        model_id=values["model"],
        model_pointer="/model",
        stream=values.get("stream", False),
        temperature=values.get("temperature"),
        max_tokens=values.get("max_tokens"),
        timeout_seconds=options.pop("timeout", None),
        sampling=sampling_options(values),
        **options,
        **more,
    )
    return without_end(request, values)


@dataclass(frozen=True)
class ChoicesRequest:
    """The inference requests of all choices, and where a stream has its usage."""

    choices: list[InferenceRequest]
    with_usage: bool
    with_running_usage: bool

    @property
    def inference(self) -> InferenceRequest:
        """The request of the first choice; the others differ in seed and prompt only."""
        return self.choices[0]

    @property
    def with_logprobs(self) -> bool:
        return self.inference.top_logprobs is not None


def choices_of(inference: InferenceRequest, values: dict[str, Any]) -> list[InferenceRequest]:
    """Return the request of each choice."""
    return repeat(inference, values.get("n", 1))


def wants_usage(values: dict[str, Any]) -> bool:
    """Return whether a stream ends with its usage."""
    return bool(values.get("stream_options", {}).get("include_usage"))


def wants_running_usage(values: dict[str, Any]) -> bool:
    """Return whether each chunk of a stream has the usage so far."""
    return bool(values.get("stream_options", {}).get("continuous_usage_stats"))


# Responses.


def response_head(kind: str, prefix: str, model_id: str) -> Document:
    """Return the fields that a response and each chunk begin with.

    `model_id` is that of the catalog, not as the client wrote it.
    """
    return {
        "id": f"{prefix}-{request_log().request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": model_id,
    }


def run_all(requests: Sequence[InferenceRequest]) -> list[InferenceOutcome]:
    """Run the inference of each choice and return the outcomes in order."""
    return [run_blocking(requests[0])] if len(requests) == 1 else run_choices(requests)


def whole_response(
    schema: type[ResponseSchema],
    head: Document,
    outcomes: Sequence[InferenceOutcome],
    build_choice: Callable[[InferenceOutcome], Document],
) -> Document:
    """Return the response that is not a stream."""
    choices = list(map(build_choice, outcomes))
    facts = own_fields(outcomes[0])
    if len(outcomes) > 1:
        facts["mes"]["choices"] = list(map(ChoiceFacts.serialize, outcomes))
    return schema.build(**head, choices=choices, usage=_usage(outcomes), **facts)


def stream_all(
    request: ChoicesRequest,
    response_stream: StreamingResponse,
    *,
    schema: type[ResponseSchema],
    build_head: Callable[[str], Document],
    create_chunks: Callable[[Document, int], ChoiceChunks],
) -> Generator[Documents]:
    """Run the inference of each choice, and yield the chunks of all choices.

    The last chunk contains the usage if the request asks for it.

    Args:
        build_head: returns the fields that each chunk begins with, for the id of the model.
        create_chunks: returns the chunks of a choice, for the head and the index of the choice.
    """
    catalog = get_services().catalog.current()
    requests = request.choices
    head = build_head(catalog.get(request.inference.model_id).id)
    if request.with_usage:
        head["usage"] = None
    choices = [create_chunks(head, index) for index in range(len(requests))]
    if request.with_running_usage:
        choices = list(map(RunningUsage, choices))
    if len(requests) > 1:
        outcomes, last = (yield from stream_choices(requests, choices, catalog)), []
    else:
        serialize = choices[0].serialize
        outcome = yield from run_streaming(requests[0], serialize, response_stream, catalog)
        outcomes, last = [outcome], list(choices[0].last(outcome))
    if "usage" in head:
        last.append(schema.build(**{**head, "choices": [], "usage": _usage(outcomes)}))
    yield last


def _usage(outcomes: Sequence[InferenceOutcome]) -> Document:
    return UsageSchema.serialize(total_usage(outcome.inference.usage for outcome in outcomes))


def output_text(outcome: InferenceOutcome) -> str:
    """Return the output; for a valid answer in a code fence or in prose, the JSON alone."""
    text = outcome.reply.text
    return text if outcome.validation is None else outcome.validation.json_alone(text)


def own_fields(outcome: InferenceOutcome) -> Document:
    """Return the fields about one outcome: of a response, or of the last chunk of a choice."""
    return {"system_fingerprint": _fingerprint(outcome), "mes": OwnFacts.serialize(outcome)}


def _fingerprint(outcome: InferenceOutcome) -> str | None:
    """Return a short form of the model's digest."""
    digest = outcome.provenance.model_digest
    return digest and f"fp_{digest.removeprefix('sha256:')[:12]}"


# Server-sent events.

DONE = "[DONE]"
EVENTS = Encoder(
    EVENT_STREAM,
    b"data: ",
    b"\n\n",
    to_openai_error,
    end=f"data: {DONE}\n\n".encode(),
    comment=b": waiting\n\n",
)
