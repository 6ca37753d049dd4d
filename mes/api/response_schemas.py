"""The shapes of answers, as clients see them; the views write them without marshmallow's help."""

from __future__ import annotations

from marshmallow import fields

from mes.api.response_fields import (
    ResponseSchema,
    flag,
    json_object,
    many,
    member,
    number,
    numbers,
    one,
    one_of,
    text,
    whole,
    words,
)

FAILURES = ("schema_violation", "not_json", "truncated", "empty")
VERDICTS = ("valid", *FAILURES, "aborted")
ENDS = ("stop", "length")
MODES = ("grammar", "json", "prompt", "free")


class HealthAnswer(ResponseSchema):
    status = one_of(("healthy",), "")
    timestamp = member(fields.DateTime, "now, in UTC")
    version = text("of MES")


class ReadyAnswer(ResponseSchema):
    status = one_of(("ready", "not_ready"), "")
    service = text("`ok`, or that it is shutting down")
    runtime = text("`ok`, or what is wrong with the runtime")
    catalog = text("`ok`, or what is wrong with the latest edit of the catalog")
    state = text("`ok`, or what is wrong with `STATE_DIR`")


class WaitingAnswer(ResponseSchema):
    request_id = text("the `X-Request-ID` it was sent with, or the one it was given")
    model_id = text("the model it waits for")
    position = whole("1 is next")
    waited_ms = whole("so far")
    expected_start_ms = whole("from now; a guess from the latest generations", null=True)


class ModelState(ResponseSchema):
    id = text("what `model_id` takes")
    name = text("for people")
    status = one_of(
        ("ready", "loading", "available", "unavailable", "not_pulled", "disabled"),
        "`ready`: in memory; `available`: would be loaded",
    )
    size_gb = number("as the catalog says", null=True)
    context_window = whole("tokens, as the catalog says", null=True)
    supports_json = flag("whether the runtime can hold it to a schema")
    loaded = flag("whether it is in memory and ready")
    in_flight = whole("requests that hold a permit")
    queued = whole("requests that wait")
    oldest_wait_ms = whole("of those that wait", null=True)
    max_concurrent = whole("how many may hold a permit at a time")
    max_queue = whole("how many may wait")
    pinned = flag("whether it is never evicted")
    loads = whole("how often it was loaded")
    evictions = whole("how often it made room for another one")


class OpenAiModel(ResponseSchema):
    id = text("what `model_id` takes")
    object = one_of(("model",), "")
    created = whole("always 0")
    owned_by = text("always `mes`")


class ModelAnswer(OpenAiModel, ModelState):
    digest = text("of the model on the runtime's disk", null=True)
    quantization = text("", null=True)
    parameter_size = text("", null=True)
    context_length = whole("the longest context the model was made for, in tokens", null=True)
    capabilities = words("what the runtime says it can do", null=True)


class ModelsAnswer(ResponseSchema):
    object = one_of(("list",), "")
    data = many(OpenAiModel, "those that are enabled, for OpenAI's clients")
    models = many(ModelState, "all that are configured")


class StatusAnswer(ResponseSchema):
    ollama_running = flag("whether the runtime answers")
    runtime = text("what runs, such as `ollama 0.33.0`", null=True)
    models_loaded = words("their ids")
    max_loaded_models = whole("how many may be in memory at a time")
    memory_available_gb = number("of this machine", null=True)
    gpu_available = flag("")
    version = text("of MES")
    models = many(ModelState, "all that are configured")
    queue = many(WaitingAnswer, "who waits, in order")


class DoneAnswer(ResponseSchema):
    success = flag("always true")
    message = text("for people")
    model_id = text("")


class PullProgressLine(ResponseSchema):
    type = one_of(("progress",), "")
    status = text("in the runtime's own words")
    completed_bytes = whole("of one file", null=True)
    total_bytes = whole("of the same file", null=True)


class PullResultLine(DoneAnswer):
    type = one_of(("result",), "the last line; without it the model is not there")


class UsageSchema(ResponseSchema):
    """Tokens, as the runtime counted them."""

    prompt_tokens = whole("")
    completion_tokens = whole("")
    total_tokens = whole("")


class GenerationTimingsSchema(ResponseSchema):
    prompt_ms = whole("reading the prompt")
    generation_ms = whole("writing the answer")
    time_to_first_token_ms = whole("from the permit on")
    tokens_per_second = number("while it wrote", null=True)


class TimingsSchema(GenerationTimingsSchema):
    queue_ms = whole("waiting for a permit")
    load_ms = whole("waiting for the model to be loaded")
    cold_start = flag("whether it had to be loaded")


class ViolationSchema(ResponseSchema):
    pointer = text("where in the answer: a JSON pointer")
    keyword = text("which keyword of the schema")
    detail = text("what is wrong")


class AttemptDetailsSchema(ResponseSchema):
    mode = one_of(MODES, "how the model was held to the schema")
    verdict = one_of(VERDICTS, "", null=True)
    errors = many(ViolationSchema, "")
    seed = whole("")
    temperature = number("")
    max_tokens = whole("")
    output = text("absent where the attempt was broken off", required=False)
    finish_reason = one_of(ENDS, "", required=False)
    usage = one(UsageSchema, "", required=False)
    timings = one(GenerationTimingsSchema, "", required=False)


class StructuredReportSchema(ResponseSchema):
    verdict = one_of(VERDICTS, "of the answer that counts")
    attempts = whole("how often the model was asked")
    first_verdict = one_of(VERDICTS, "of the first attempt")
    mode = one_of(MODES, "how the model was held to the schema")
    extraction = one_of(("whole", "fence", "prose"), "where the JSON stood", null=True)
    enforced = words("keywords that the runtime enforced while it wrote")
    ignored = words("keywords that it left to the model")
    errors = many(ViolationSchema, "what is wrong, at most 20")
    attempt_details = many(AttemptDetailsSchema, "each attempt, so that the first can be scored")


class ProvenanceSchema(ResponseSchema):
    """What a run needs to be repeated."""

    model_digest = text("", null=True)
    quantization = text("", null=True)
    runtime = text("", null=True)
    options = json_object("all that the runtime was told")
    seed = whole("")
    schema_sha256 = text("of the compact text of `json_schema`", null=True)
    mes_version = text("")


class LikelySchema(ResponseSchema):
    token = text("")
    logprob = number("the natural logarithm of its probability")
    bytes = numbers("of the token in UTF-8, which may be a part of a letter")


class LogprobSchema(LikelySchema):
    """A token of the answer, and how probable it was."""

    top_logprobs = many(LikelySchema, "the likeliest at its place, as many as were asked for")


class InferenceAnswer(ResponseSchema):
    success = flag("false where the answer breaks its schema")
    model_id = text("")
    output = text("what the model wrote")
    parsed = member(fields.Raw, "the value, where a schema was given and satisfied", null=True)
    finish_reason = one_of(ENDS, "`length` at `max_tokens`")
    usage = one(UsageSchema, "of all attempts together")
    latency_ms = whole("what the caller waited")
    timings = one(TimingsSchema, "of all attempts together")
    structured = one(StructuredReportSchema, "null without a schema", null=True)
    provenance = one(ProvenanceSchema, "of the attempt that counts")
    request_id = text("")
    reasoning = text("what a reasoning model thought before", required=False)
    logprobs = many(LogprobSchema, "of each token of the output, with `logprobs`", required=False)
    code = one_of(FAILURES, "the verdict, where `success` is false", required=False)
    error = text("the first mistake, where `success` is false", required=False)


class QueuedLine(ResponseSchema):
    type = one_of(("queued",), "it has to wait")
    position = whole("1 is the next to be served by its model")


class LoadingLine(ResponseSchema):
    type = one_of(("loading",), "its model is being loaded")


class TextLine(ResponseSchema):
    type = one_of(("token", "reasoning"), "a piece of the answer, or of the thought before it")
    text = text("")
    attempt = whole("which attempt, from the second on", required=False)
    logprobs = many(LogprobSchema, "of each token of the piece, with `logprobs`", required=False)


class ResultLine(InferenceAnswer):
    type = one_of(("result",), "the last line; the other members are those of the answer")


class FindingSchema(ResponseSchema):
    pointer = text("where in the schema: a JSON pointer")
    keyword = text("")
    effect = one_of(("ignored", "refused", "distorted", "excluded", "fatal"), "")
    reason = text("")


class SchemaCheckAnswer(ResponseSchema):
    success = flag("always true; what is wrong with a schema is a problem")
    dialect = text("the schema's, as a URI")
    schema_sha256 = text("of its compact text")
    bytes = whole("of its compact text")
    subschemas = whole("")
    modes = words("in which the model would be asked, the strictest first")
    enforced = words("keywords that the runtime would enforce while it writes")
    ignored = words("keywords that it would leave to the model")
    findings = many(
        FindingSchema, "what the runtime would make of each keyword, but for enforcing it"
    )


class MistakeSchema(ResponseSchema):
    pointer = text("where in the body: a JSON pointer")
    detail = text("what is wrong, and what to do about it")


class ProblemSchema(ResponseSchema):
    """What went wrong (RFC 9457)."""

    type = text("`urn:mes:problem:` and the code")
    title = text("the code in words")
    status = whole("the HTTP status")
    detail = text("what is wrong, and what to do about it")
    code = text("stable; for programs")
    request_id = text("under which the log tells more")
    errors = many(MistakeSchema, "each mistake in what was sent")
    success = flag("always false", metadata={"enum": [False]})
    error = text("the same as `detail`")


class ErrorLine(ProblemSchema):
    type = one_of(("error",), "the last line; the other members are those of a problem")
