"""The shapes of answers at OpenAI's doors."""

from __future__ import annotations

from marshmallow import fields

from mes.api.response_fields import (
    ResponseSchema,
    many,
    member,
    numbers,
    one,
    one_of,
    text,
    whole,
    words,
)
from mes.api.response_schemas import (
    ENDS,
    FAILURES,
    LogprobSchema,
    MistakeSchema,
    ProvenanceSchema,
    StructuredReportSchema,
    TimingsSchema,
    UsageSchema,
    ViolationSchema,
)


class JudgedCall(ResponseSchema):
    id = text("of the call")
    verdict = one_of(("valid", "schema_violation"), "do the arguments fit the parameters?")
    errors = many(ViolationSchema, "where they do not")


class OwnFacts(ResponseSchema):
    """What MES knows beside the answer; clients that do not know it pass over it."""

    success = member(fields.Boolean, "false where the answer breaks its schema, or a call its tool")
    code = one_of(FAILURES, "the verdict, where `success` is false", required=False)
    error = text("the first mistake, where `success` is false", required=False)
    request_id = text("")
    latency_ms = whole("what the caller waited")
    timings = one(TimingsSchema, "of all attempts together")
    structured = one(StructuredReportSchema, "null without a schema", null=True)
    provenance = one(ProvenanceSchema, "of the attempt that counts")
    tool_calls = many(JudgedCall, "where tools were called", required=False)


class CalledFunction(ResponseSchema):
    name = text("", required=False)
    arguments = text("JSON in a string, or a piece of it")


class ToolCallSchema(ResponseSchema):
    id = text("")
    type = one_of(("function",), "")
    function = one(CalledFunction, "")


class PieceOfCall(ResponseSchema):
    index = whole("which call")
    id = text("with the first piece", required=False)
    type = one_of(("function",), "with the first piece", required=False)
    function = one(CalledFunction, "")


class AssistantMessage(ResponseSchema):
    role = one_of(("assistant",), "")
    content = text("null where a function was called instead", null=True)
    refusal = member(fields.Raw, "always null", null=True)
    reasoning = text("what a reasoning model thought before", required=False)
    tool_calls = many(ToolCallSchema, "", required=False)


class ChatLogprobs(ResponseSchema):
    content = many(LogprobSchema, "of each token")
    refusal = member(fields.Raw, "always null", null=True)


_CHAT_ENDS = (*ENDS, "tool_calls")


class ChatChoice(ResponseSchema):
    index = whole("always 0")
    message = one(AssistantMessage, "")
    logprobs = one(ChatLogprobs, "with `logprobs`", null=True)
    finish_reason = one_of(_CHAT_ENDS, "")


class Delta(ResponseSchema):
    role = one_of(("assistant",), "in the first chunk", required=False)
    content = text("a piece of the answer", required=False)
    reasoning = text("a piece of the thought before it", required=False)
    tool_calls = many(PieceOfCall, "", required=False)


class ChatChunkChoice(ResponseSchema):
    index = whole("always 0")
    delta = one(Delta, "")
    logprobs = one(ChatLogprobs, "with `logprobs`", null=True)
    finish_reason = one_of(_CHAT_ENDS, "with the last choice", null=True)


class _Head(ResponseSchema):
    id = text("holds the request id")
    created = whole("seconds since 1970")
    model = text("its id in the catalog")


class _Whole(_Head):
    system_fingerprint = text("alike where the same model answered", null=True)
    usage = one(UsageSchema, "of all attempts together")
    mes = one(OwnFacts, "")


class _Chunk(_Head):
    usage = one(
        UsageSchema, "null but in the last chunk; with `include_usage`", null=True, required=False
    )
    system_fingerprint = text("with the finish reason", null=True, required=False)
    mes = one(OwnFacts, "with the finish reason", required=False)


class ChatCompletion(_Whole):
    object = one_of(("chat.completion",), "")
    choices = many(ChatChoice, "one")


class ChatCompletionChunk(_Chunk):
    object = one_of(("chat.completion.chunk",), "")
    choices = many(ChatChunkChoice, "one, or none beside the usage")


class CompletionLogprobs(ResponseSchema):
    tokens = words("")
    token_logprobs = member(fields.List, "", fields.Float())
    top_logprobs = member(fields.List, "", fields.Dict())
    text_offset = numbers("where each token begins, in characters")


class CompletionChoice(ResponseSchema):
    index = whole("always 0")
    text = text("")
    logprobs = one(CompletionLogprobs, "with `logprobs`", null=True)
    finish_reason = one_of(ENDS, "", null=True)


class Completion(_Whole):
    object = one_of(("text_completion",), "")
    choices = many(CompletionChoice, "one")


class CompletionChunk(_Chunk):
    object = one_of(("text_completion",), "")
    choices = many(CompletionChoice, "one, or none beside the usage")


class OpenAiErrorFacts(ResponseSchema):
    message = text("what is wrong, and what to do about it")
    type = text("as OpenAI sorts them, such as `invalid_request_error`")
    param = text("the first field that is wrong", null=True)
    code = text("stable; for programs")
    request_id = text("under which the log tells more")
    errors = many(MistakeSchema, "each mistake in what was sent")


class OpenAiErrorSchema(ResponseSchema):
    """What went wrong, as OpenAI tells it."""

    error = one(OpenAiErrorFacts, "")
