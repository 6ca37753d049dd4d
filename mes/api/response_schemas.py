"""Response schemas that several endpoints use: tokens, durations, provenance and errors."""

from __future__ import annotations

from mes.api.response_fields import (
    ResponseSchema,
    boolean,
    choice,
    integer,
    integers,
    json_object,
    nested_list,
    number,
    string,
    strings,
)
from mes.domain import PREFIX_CACHE_USES


class UsageSchema(ResponseSchema):
    """Numbers of tokens, as counted by the runtime."""

    prompt_tokens = integer("Tokens of the prompt.")
    completion_tokens = integer("Tokens of the reasoning and the answer.")
    total_tokens = integer("The sum of both.")
    counted_by_mes = integer(
        "Completion tokens of reasoning that MES has counted by its pieces, because the runtime "
        "does not report them: a lower bound. Absent if there are none.",
        source=lambda usage: usage.counted_by_mes or None,
        required=False,
    )


class GenerationTimingsSchema(ResponseSchema):
    """Durations of a generation in the runtime."""

    prompt_ms = integer("Time the runtime took to read the prompt, in milliseconds.")
    generation_ms = integer("Time the runtime took to generate the answer, in milliseconds.")
    time_to_first_token_ms = integer("Time from the permit to the first token, in milliseconds.")
    tokens_per_second = number("Tokens generated per second.", null=True)


class WaitTimingsSchema(ResponseSchema):
    """Durations before the runtime begins."""

    queue_ms = integer("Time the request waited for a permit, in milliseconds.")
    load_ms = integer("Time the request waited for its model to be loaded, in milliseconds.")
    cold_start = boolean("Whether the model had to be loaded for this request.")


class TimingsSchema(GenerationTimingsSchema, WaitTimingsSchema):
    """Durations of an inference."""


class RuntimeProvenanceSchema(ResponseSchema):
    """The model, the runtime and the options that produced a response."""

    model_digest = string(
        "Digest of the model that answered; null if it is not known.",
        source="provenance.model_digest",
        null=True,
    )
    quantization = string("Quantization of the model.", source="provenance.quantization", null=True)
    runtime = string("Name and version of the runtime.", source="provenance.runtime", null=True)
    options = json_object("All options that were sent to the runtime.")
    mes_version = string("Version of MES.", source="provenance.mes_version")
    warnings = strings("Reasons why one of these facts is not known.", source="provenance.warnings")


class ProvenanceSchema(RuntimeProvenanceSchema):
    """The facts that are needed to repeat a run."""

    seed = integer("Seed of the sampling.")
    schema_sha256 = string(
        "SHA-256 of the compact text of `json_schema`.",
        source="provenance.schema_sha256",
        null=True,
    )
    prefix_cache = choice(
        PREFIX_CACHE_USES,
        "Whether the runtime took the beginning of the prompt from a cache, which can change the "
        "answer. Only the embedded runtime reports it.",
        source="reply.prefix_cache",
    )


class LikelySchema(ResponseSchema):
    """A token and its probability."""

    token = string("Text of the token.")
    logprob = number("Natural logarithm of the token's probability.")
    bytes = integers("The token in UTF-8. A token may be a part of a character.")


class LogprobSchema(LikelySchema):
    """A token of the answer, its probability and the likeliest tokens at its place."""

    top_logprobs = nested_list(
        LikelySchema,
        "The likeliest tokens at this place, as many as `top_logprobs` requests, and the "
        "token itself if it is not among them.",
    )


class ViolationSchema(ResponseSchema):
    """One violation of the schema by an answer."""

    pointer = string("JSON pointer to the place in the answer.")
    keyword = string("Keyword of the schema that is violated.")
    detail = string("Description of the violation.")


class MistakeSchema(ResponseSchema):
    """One mistake in the request."""

    pointer = string("JSON pointer to the place in the body.")
    detail = string("Description of the mistake and how to correct it.")


class ProblemSchema(ResponseSchema):
    """An error response (RFC 9457), built by `mes.server.connection`."""

    type = string("`urn:mes:problem:` followed by the code.")
    title = string("The code in words.")
    status = integer("The HTTP status.")
    detail = string("Description of the error and what to do about it.")
    code = string("Stable name of the error, for programs.")
    request_id = string("The request's `X-Request-ID`, which the log has too.")
    errors = nested_list(MistakeSchema, "All mistakes in the request.")
    success = boolean("Always false.", metadata={"enum": [False]})
    error = string("The same as `detail`.")


class ErrorLine(ProblemSchema):
    """An error, as the last line of a stream."""

    type = choice(("error",), "The last line; its other fields are those of an error response.")
