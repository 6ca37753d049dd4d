"""Words: when each error comes, what each field of a request means, and examples."""

from __future__ import annotations

from typing import Any

OVERVIEW = """\
One door to the open models that a team runs on its own machines: it loads and unloads them on \
demand, decides who may use which when, and makes them answer in the JSON that was asked for.

The status tells about the service, `success` about the answer. A model that finished but broke \
its schema is a 200 with `success` false and the verdict in `code`. Anything that kept it from \
answering is a 4xx or 5xx: a problem document (RFC 9457) with a stable `code`.

Answers may gain members; bear with those you do not know."""

WHEN = {
    "malformed_request": "not HTTP, or not JSON: duplicate keys, NaN, invalid UTF-8, a wrong Host",
    "unauthorized": "no key, or a wrong one",
    "forbidden": "the key's scopes do not reach so far; the detail names the one that is missing",
    "not_found": "there is no such path",
    "model_not_found": "the model is not in the catalog, or disabled there",
    "model_not_pulled": "the runtime does not have the model; pull it",
    "not_waiting": "no request with this id waits: it runs, has ended, or never came",
    "request_timeout": "the request did not arrive in time",
    "model_busy": "the model did not drain in time",
    "content_too_large": "the body is larger than `MAX_BODY_BYTES`",
    "uri_too_long": "the request line is too long",
    "unsupported_media_type": "the body is not `application/json` in UTF-8, uncompressed",
    "expectation_failed": "only `Expect: 100-continue` can be met",
    "request_invalid": "a field is wrong; `errors` says which and why",
    "schema_invalid": "`json_schema` is no JSON Schema; `errors` says where",
    "schema_unsafe": "judging by `json_schema` could hang, leak or cost too much",
    "prompt_too_long": "the prompt does not fit the model's context",
    "rate_limited": "too many wrong keys from this address; right ones are served",
    "headers_too_large": "the headers are too many or too long",
    "internal_error": "a bug of the service; its log has the traceback under the request id",
    "not_implemented": "only `Transfer-Encoding: chunked` is known",
    "runtime_reply_invalid": "the runtime answered nonsense",
    "generation_aborted": "the runtime broke the generation off",
    "pull_failed": "the model could not be fetched; the runtime's own words say why",
    "queue_full": "too many wait; come back after `Retry-After`",
    "queue_timeout": "it was not its turn in time; come back after `Retry-After`",
    "shutting_down": "the service ends or restarts; come back after `Retry-After`",
    "runtime_unavailable": "the runtime cannot be reached",
    "model_unavailable": "the model failed to load and cools down; the detail has the reason",
    "generation_timeout": "the generation took longer than `timeout`",
    "load_timeout": "loading the model took longer than `LOAD_TIMEOUT`",
}

# A field of that name means the same in each request.
FIELDS = {
    "model_id": "a model of the catalog, in any spelling that Ollama knows",
    "prompt": "what the model is asked; or `messages`",
    "messages": "a conversation instead of a prompt; its last turn is answered",
    "stream": "whether to tell what happens, line by line, as it happens",
    "think": "whether a reasoning model thinks first, or how hard; false where it is left out",
    "logprobs": "whether each token comes with its probability; a number where OpenAI has one",
    "top_logprobs": "how many of the likeliest tokens to tell at each place as well",
    "system_prompt": "what the model is told beforehand",
    "temperature": "the model's own where it is left out",
    "max_tokens": "of the answer; the catalog's where it is left out",
    "top_p": "the runtime's own where it is left out",
    "top_k": "the runtime's own where it is left out",
    "min_p": "the runtime's own where it is left out",
    "seed": "one is chosen and told where it is left out",
    "stop": "what ends the answer: a string, or up to 16",
    "repeat_penalty": "the runtime's own where it is left out",
    "presence_penalty": "the runtime's own where it is left out",
    "frequency_penalty": "the runtime's own where it is left out",
    "json_schema": "what the answer has to fit: a JSON Schema, draft 4 to 2020-12",
    "instances": "JSON values to judge by the schema, 1 to 1,000",
    "max_attempts": "with a schema: how often the model may be asked; the model's own, else 2",
    "constrain": "with a schema: whether decoding is constrained; true where it is left out",
    "timeout": "seconds for the generation, not for the queue or the load; the model's own",
    "model": "a model of the catalog, in any spelling that Ollama knows",
    "stream_options": "`include_usage`: whether a stream ends with its usage",
    "max_completion_tokens": "of the answer; the newer name of `max_tokens`",
    "n": "one answer a request",
    "best_of": "one answer a request",
    "echo": "the prompt does not come back",
    "suffix": "nothing is filled in before a text",
    "logit_bias": "no tokens can be favoured",
    "modalities": "answers are text",
    "response_format": "what the answer has to be: any object, or what fits a JSON Schema",
    "tools": "functions that the model may call",
    "tool_choice": "which of them; one that has to be called is answered like a schema",
    "parallel_tool_calls": "whether several may be called at a time",
    "reasoning_effort": "how hard a reasoning model thinks first; not at all where it is left out",
    "mes": "what OpenAI has no words for: `max_attempts`, `constrain`, `timeout`",
    "user": "of no consequence for the answer",
    "store": "nothing is kept",
    "service_tier": "of no consequence for the answer",
    "metadata": "of no consequence for the answer",
    "safety_identifier": "of no consequence for the answer",
    "prompt_cache_key": "of no consequence for the answer",
    "input": "a text, or up to 2048; none is cut, and token arrays are not taken",
    "encoding_format": "`float` where it is left out; `base64` is shorter",
    "dimensions": "of each vector: cut to so many and made of length 1 again",
}

PARAMETERS = {
    "model_id": ("a model of the catalog; `/` may be sent as it is or as `%2F`", "smollm2:135m"),
    "request_id": ("the `X-Request-ID` that the request was sent with", "run-7.prompt-12"),
}

_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
    "required": ["name", "age"],
}

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

# By the endpoint: requests that can be sent as they are.
EXAMPLES: dict[str, dict[str, Any]] = {
    "inference.create": {
        "prompt": {
            "model_id": "smollm2:135m",
            "prompt": "What is the capital of France?",
            "temperature": 0,
        },
        "schema": {
            "model_id": "smollm2:135m",
            "prompt": "Extract the name and age from: John Smith is 25 years old",
            "json_schema": _PERSON,
        },
        "stream": {
            "model_id": "smollm2:135m",
            "messages": _QUESTION,
            "stream": True,
        },
    },
    "chat.create": {
        "conversation": {"model": "smollm2:135m", "messages": _QUESTION},
        "schema": {
            "model": "smollm2:135m",
            "messages": [
                {"role": "user", "content": "Extract the person: John Smith is 25 years old"}
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": _PERSON},
            },
        },
        "stream": {
            "model": "smollm2:135m",
            "messages": _QUESTION,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
    "completions.create": {
        "prompt": {
            "model": "smollm2:135m",
            "prompt": "The capital of France is",
            "max_tokens": 8,
        },
    },
    "embeddings.create": {
        "texts": {"model": "all-minilm", "input": ["The sky is blue.", "Grass is green."]},
    },
    "checks.check": {"schema": {"json_schema": _PERSON, "model_id": "smollm2:135m"}},
    "schema_validation.validate_instances": {
        "instances": {
            "json_schema": _PERSON,
            "instances": [{"name": "John Smith", "age": 25}, {"name": "Jane Doe", "age": "30"}],
        },
    },
}

# By the name of the blueprint.
TAGS = {
    "health": "does the process live, can work be done, and how does it stand with the models.",
    "models": "what may be run, and bringing it in and out of memory by hand.",
    "pull": "models fetched onto the runtime's disk, told in lines while it lasts.",
    "queue": "where a waiting request stands, for whoever asks by its id.",
    "checks": "what MES and the runtime will make of a schema, without a generation.",
    "schema_validation": "instances judged by a schema with two validators, without a generation.",
    "metrics": "the page that Prometheus scrapes.",
    "docs": "this interface, for programs and for people.",
    "inference": "one generation, asked and answered, at once or in a stream.",
    "chat": "a conversation as OpenAI's clients hold it.",
    "completions": "a prompt without a conversation, as OpenAI's older clients send it.",
    "embeddings": "texts as vectors, asked for as OpenAI's clients do.",
}
