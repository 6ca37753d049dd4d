"""Response schemas of inferences and of their streams."""

from __future__ import annotations

from typing import Any

from mes.api.response_fields import (
    Document,
    ResponseSchema,
    boolean,
    choice,
    constant,
    integer,
    json_value,
    nested,
    nested_list,
    number,
    string,
    strings,
)
from mes.api.response_schemas import (
    GenerationTimingsSchema,
    LogprobSchema,
    ProvenanceSchema,
    TimingsSchema,
    UsageSchema,
    ViolationSchema,
)
from mes.api.tool_call_responses import JudgedToolCall, judged_calls
from mes.domain import Attempt, Event, Inference, Loading, Queued, Thought, Token

FAILURES = ("schema_violation", "not_json", "undecided", "no_tool_call", "truncated", "empty")
VERDICTS = ("valid", *FAILURES, "aborted")
FINISH_REASONS = ("stop", "length")
MODES = ("grammar", "json", "prompt", "tools", "free")


class InferenceOutcome:
    """A finished inference and its request: the source of `InferenceAnswer`.

    `index` is that of its choice, in a request with several ones. `ignored` are the names of the
    request's parameters that have no effect.
    """

    __slots__ = (
        "failure",
        "final",
        "ignored",
        "index",
        "inference",
        "options",
        "provenance",
        "reply",
        "request_id",
        "seed",
        "validation",
    )

    def __init__(
        self,
        inference: Inference,
        request_id: str,
        index: int = 0,
        *,
        ignored: tuple[str, ...] = (),
    ) -> None:
        self.inference = inference
        self.request_id = request_id
        self.index = index
        self.ignored = ignored
        self.final = inference.final
        self.options = self.final.options
        self.seed = self.options["seed"]
        self.reply = inference.reply
        self.validation = self.final.validation
        self.failure = inference.failure
        self.provenance = inference.provenance

    @property
    def error(self) -> str | None:
        """The first violation in words; None for an answer that is accepted."""
        if self.failure is None:
            return None
        first = self.failure.errors[0]
        return f"{first.pointer}: {first.detail}" if first.pointer else first.detail


def _of_reply(name: str) -> Any:
    """Return the source of a field that is absent for an attempt without a reply."""
    return lambda attempt: None if attempt.reply is None else getattr(attempt.reply, name)


def _errors(attempt: Attempt) -> Any:
    return () if attempt.validation is None else attempt.validation.errors


class AttemptDetailsSchema(ResponseSchema):
    """One attempt, complete, so that the first can be scored on its own."""

    mode = choice(MODES, "How the model was held to the schema.")
    verdict = choice(VERDICTS, "Verdict on the answer of this attempt.", null=True)
    errors = nested_list(ViolationSchema, "Violations of the schema, at most 20.", source=_errors)
    seed = integer("Seed of the sampling.", source=lambda attempt: attempt.options["seed"])
    temperature = number(
        "Temperature of the sampling.", source=lambda attempt: attempt.options["temperature"]
    )
    max_tokens = integer(
        "Most tokens the answer could have.", source=lambda attempt: attempt.options["num_predict"]
    )
    output = string(
        "Text of the answer; absent if the attempt was aborted.",
        source=_of_reply("text"),
        required=False,
    )
    finish_reason = choice(
        FINISH_REASONS,
        "`length` if the answer reached `max_tokens`; absent if the attempt was aborted.",
        source=_of_reply("finish_reason"),
        required=False,
    )
    usage = nested(
        UsageSchema, "Tokens of this attempt.", source=_of_reply("usage"), required=False
    )
    timings = nested(
        GenerationTimingsSchema,
        "Durations of this attempt.",
        source=_of_reply("timings"),
        required=False,
    )


class StructuredReportSchema(ResponseSchema):
    """How the answer relates to `json_schema`."""

    verdict = choice(VERDICTS, "Verdict on the answer.", source="validation.verdict")
    attempts = integer(
        "Number of generations.", source=lambda outcome: len(outcome.inference.attempts)
    )
    first_verdict = choice(
        VERDICTS,
        "Verdict on the first attempt.",
        source=lambda outcome: outcome.inference.attempts[0].verdict,
    )
    mode = choice(MODES, "How the model was held to the schema.", source="final.mode")
    extraction = choice(
        ("whole", "fence", "prose"),
        "Where the JSON was found: the whole answer, a code fence in it, or its prose.",
        source="validation.extraction",
        null=True,
    )
    enforced = strings(
        "Keywords that the runtime enforced during the generation.",
        source="inference.keywords.enforced",
    )
    ignored = strings(
        "Keywords that the runtime did not enforce.", source="inference.keywords.ignored"
    )
    errors = nested_list(
        ViolationSchema, "Violations of the schema, at most 20.", source="validation.errors"
    )
    attempt_details = nested_list(
        AttemptDetailsSchema, "All attempts in their order.", source="inference.attempts"
    )


class InferenceAnswer(ResponseSchema):
    """The response to `POST /v1/inference`."""

    success = boolean(
        "False if the answer violates its schema, or a tool call its parameters.",
        source=lambda outcome: outcome.failure is None,
    )
    model_id = string("Id of the model in the catalog.", source="inference.model_id")
    output = string("Text the model generated.", source="reply.text")
    parsed = json_value(
        "The JSON value of the answer; null without `json_schema` or if the answer violates it.",
        source=lambda outcome: outcome.validation and outcome.validation.parsed,
        null=True,
    )
    finish_reason = choice(
        FINISH_REASONS,
        "`length` if the answer reached `max_tokens`.",
        source="reply.finish_reason",
    )
    usage = nested(UsageSchema, "Tokens of all attempts.", source="inference.usage")
    latency_ms = integer(
        "Time from the request's arrival to its response, in milliseconds.",
        source="inference.latency_ms",
    )
    timings = nested(TimingsSchema, "Durations of all attempts.", source="inference.timings")
    structured = nested(
        StructuredReportSchema,
        "How the answer relates to `json_schema`; null without one.",
        source=lambda outcome: outcome if outcome.validation else None,
        null=True,
    )
    provenance = nested(
        ProvenanceSchema,
        "The facts that are needed to repeat the attempt whose answer is returned.",
        source=lambda outcome: outcome,
    )
    request_id = string("The request's `X-Request-ID`.")
    reasoning = string(
        "Reasoning of the model before its answer.",
        source=lambda outcome: outcome.reply.reasoning or None,
        required=False,
    )
    logprobs = nested_list(
        LogprobSchema,
        "Probabilities of the tokens of the output, with `logprobs`.",
        source=lambda outcome: outcome.reply.logprobs or None,
        required=False,
    )
    tool_calls = nested_list(
        JudgedToolCall,
        "Calls of tools, if there are any, with the verdict on each.",
        source=judged_calls,
        required=False,
    )
    dropped_tool_calls = integer(
        "Number of further calls that are left out, if only one is wanted.",
        source=lambda outcome: outcome.reply.dropped_tool_calls or None,
        required=False,
    )
    code = choice(
        FAILURES,
        "The verdict, if `success` is false.",
        source=lambda outcome: outcome.failure and outcome.failure.verdict,
        required=False,
    )
    error = string("The first violation, if `success` is false.", required=False)
    ignored = strings(
        "Parameters of the request that had no effect, such as `user`; absent if there are none.",
        source=lambda outcome: list(outcome.ignored) or None,
        required=False,
    )


# Lines of a stream.


class QueuedLine(ResponseSchema):
    """The request has to wait."""

    type = constant("queued", "The request waits for a permit.")
    position = integer("Position in the queue of the model; 1 is the next.")


class LoadingLine(ResponseSchema):
    """The model of the request is being loaded."""

    type = constant("loading", "The model is being loaded.")


_TEXT_TYPES = {Token: "token", Thought: "reasoning"}


class TextLine(ResponseSchema):
    """A piece of the answer or of the reasoning before it."""

    type = choice(
        ("token", "reasoning"),
        "Whether the text belongs to the answer or to the reasoning before it.",
        source=lambda event: _TEXT_TYPES[type(event)],
    )
    text = string("The piece of text.")
    attempt = integer(
        "Number of the attempt, from the second on.",
        source=lambda event: event.attempt if event.attempt != 1 else None,
        required=False,
    )
    logprobs = nested_list(
        LogprobSchema,
        "Probabilities of the tokens of the piece, with `logprobs`.",
        source=lambda event: getattr(event, "logprobs", None) or None,
        required=False,
    )


class LastLineSchema(ResponseSchema):
    """The line that ends a complete stream."""

    type = constant("result", "The last line. A stream that ends without it is incomplete.")


class ResultLine(InferenceAnswer, LastLineSchema):
    """The response of the inference, as the last line of its stream."""


_EVENT_SERIALIZERS = {
    Queued: QueuedLine.serialize,
    Loading: LoadingLine.serialize,
    Token: TextLine.serialize,
    Thought: TextLine.serialize,
}


def serialize_event(event: Event) -> Document:
    """Return the line that reports the event."""
    return _EVENT_SERIALIZERS[type(event)](event)
