"""Schemas of the responses of OpenAI's endpoints."""

from __future__ import annotations

from mes.api.inference_responses import (
    FINISH_REASONS,
    InferenceAnswer,
)
from mes.api.openai.completion_logprobs import CompletionLogprobs
from mes.api.response_fields import (
    ResponseSchema,
    boolean,
    choice,
    constant,
    integer,
    json_value,
    nested,
    nested_list,
    string,
)
from mes.api.response_schemas import LogprobSchema, MistakeSchema, UsageSchema
from mes.api.tool_call_responses import JudgedCall, judged_calls

# The fields that MES adds.


_IN_OPENAIS_FIELDS = (
    "model_id",
    "output",
    "parsed",
    "finish_reason",
    "usage",
    "reasoning",
    "logprobs",
)


class _Facts(InferenceAnswer):
    """The fields of an inference's response that OpenAI's API has no place for."""

    class Meta(ResponseSchema.Meta):
        exclude: tuple[str, ...] = _IN_OPENAIS_FIELDS

    success = boolean(
        "False if the answer violates its schema, or a tool call its parameters.",
        source=lambda outcome: outcome.failure is None,
    )
    tool_calls = nested_list(
        JudgedCall,
        "Verdicts on the tool calls, if there are any.",
        source=judged_calls,
        required=False,
    )


class ChoiceFacts(_Facts):
    """The fields of one choice of several that OpenAI's API has no place for."""

    class Meta(ResponseSchema.Meta):
        exclude = (*_IN_OPENAIS_FIELDS, "request_id", "ignored")

    index = integer("Index of the choice.")


class OwnFacts(_Facts):
    """The fields of an inference's response that OpenAI's API has no place for, as `mes`."""

    choices = nested_list(
        ChoiceFacts,
        "The same fields for each choice, if there are several; the others are those of the first.",
        source=lambda outcome: None,  # `whole_response` adds them
        required=False,
    )


class _Head(ResponseSchema):
    id = string("Id of the response, which contains the request's `X-Request-ID`.")
    created = integer("Time of the response, in seconds since 1970.")
    model = string("Id of the model in the catalog.")


class _Whole(_Head):
    system_fingerprint = string("The same for all responses of the same model version.", null=True)
    usage = nested(UsageSchema, "Tokens of all attempts of all choices.")
    mes = nested(OwnFacts, "Fields that MES adds to OpenAI's API.")


class _Chunk(_Head):
    usage = nested(
        UsageSchema,
        "With `include_usage`: tokens of all attempts of all choices in the last chunk, else null. "
        "With `continuous_usage_stats`: those of the choice so far.",
        null=True,
        required=False,
    )
    system_fingerprint = string(
        "The same for all responses of one model version; in the chunk with the finish reason.",
        null=True,
        required=False,
    )
    mes = nested(
        OwnFacts,
        "Fields that MES adds to OpenAI's API; in the chunk with the finish reason of a choice.",
        required=False,
    )


# Chat completions.

_CHAT_FINISH_REASONS = (*FINISH_REASONS, "tool_calls")
_LENGTH = "`length` if the answer reached `max_tokens`"


class CalledFunction(ResponseSchema):
    """The function of a tool call."""

    name = string("Name of the function; in a stream, with the first piece.", required=False)
    arguments = string("Arguments as JSON; in a stream, a piece of them.")


class ToolCallSchema(ResponseSchema):
    """A tool call of the model."""

    component_name = "Call"

    id = string("Id of the call.")
    type = constant("function", "Always `function`.")
    function = nested(CalledFunction, "The function and its arguments.")


class PieceOfCall(ResponseSchema):
    """A piece of a tool call in a stream."""

    index = integer("Number of the call, from 0 on.")
    id = string("Id of the call, with the first piece.", required=False)
    type = choice(("function",), "Always `function`, with the first piece.", required=False)
    function = nested(CalledFunction, "The function and its arguments.")


class AssistantMessage(ResponseSchema):
    """The message of the model."""

    role = constant("assistant", "Always `assistant`.")
    content = string("Text of the answer; null for a function call.", null=True)
    refusal = json_value("Always null.", null=True)
    reasoning = string("Reasoning of the model before its answer.", required=False)
    tool_calls = nested_list(ToolCallSchema, "Tool calls of the model.", required=False)


class ChatLogprobs(ResponseSchema):
    """Probabilities of tokens. The source is a sequence of `Logprob`."""

    content = nested_list(
        LogprobSchema, "Probability of each token.", source=lambda logprobs: logprobs
    )
    refusal = json_value("Always null.", source=lambda logprobs: None, null=True)


class ChatChoice(ResponseSchema):
    """The answer of a chat completion."""

    index = integer("Index of the choice, from 0 on.")
    message = nested(AssistantMessage, "The message of the model.")
    logprobs = nested(
        ChatLogprobs, "Probabilities of the tokens; null without `logprobs`.", null=True
    )
    finish_reason = choice(_CHAT_FINISH_REASONS, f"{_LENGTH}, `tool_calls` if tools are called.")


class Delta(ResponseSchema):
    """A piece of the message of the model."""

    role = choice(("assistant",), "Always `assistant`; in the first chunk.", required=False)
    content = string("A piece of the answer.", required=False)
    reasoning = string("A piece of the reasoning before the answer.", required=False)
    tool_calls = nested_list(PieceOfCall, "Pieces of tool calls.", required=False)


class ChatChunkChoice(ResponseSchema):
    """A piece of the answer of a chat completion."""

    index = integer("Index of the choice, from 0 on.")
    delta = nested(Delta, "A piece of the message.")
    logprobs = nested(
        ChatLogprobs, "Probabilities of the piece's tokens; null without `logprobs`.", null=True
    )
    finish_reason = choice(
        _CHAT_FINISH_REASONS,
        f"{_LENGTH}, `tool_calls` if tools are called; null before the last choice.",
        null=True,
    )


class ChatCompletion(_Whole):
    """The response to `POST /v1/chat/completions`."""

    object = constant("chat.completion", "Always `chat.completion`.")
    choices = nested_list(ChatChoice, "As many choices as `n`.")


class ChatCompletionChunk(_Chunk):
    """A chunk of a streamed chat completion."""

    object = constant("chat.completion.chunk", "Always `chat.completion.chunk`.")
    choices = nested_list(ChatChunkChoice, "One choice; none in the chunk with the usage.")


# Completions.


class CompletionChoice(ResponseSchema):
    """The answer of a completion, or a piece of it."""

    index = integer(
        "Index of the choice, from 0 on: first the choices of the first prompt, then of the next."
    )
    text = string("Text of the answer; in a stream, a piece of it.")
    logprobs = nested(
        CompletionLogprobs, "Probabilities of the tokens; null without `logprobs`.", null=True
    )
    finish_reason = choice(
        FINISH_REASONS, f"{_LENGTH}; in a stream, null before the last choice.", null=True
    )


class Completion(_Whole):
    """The response to `POST /v1/completions`."""

    object = constant("text_completion", "Always `text_completion`.")
    choices = nested_list(CompletionChoice, "As many choices as `n` for each prompt.")


class CompletionChunk(_Chunk):
    """A chunk of a streamed completion."""

    object = constant("text_completion", "Always `text_completion`.")
    choices = nested_list(CompletionChoice, "One choice; none in the chunk with the usage.")


# Errors.


class OpenAiErrorFacts(ResponseSchema):
    """An error."""

    message = string("Description of the error and what to do about it.")
    type = string("Class of the error in OpenAI's API, such as `invalid_request_error`.")
    param = string("The first invalid field.", null=True)
    code = string("Stable name of the error, for programs.")
    request_id = string("The request's `X-Request-ID`, which the log has too.")
    errors = nested_list(MistakeSchema, "All mistakes in the request.")


class OpenAiErrorSchema(ResponseSchema):
    """An error response of OpenAI's API."""

    error = nested(OpenAiErrorFacts, "The error.")
