"""Texts of the OpenAPI document: error causes, request fields, examples and tags."""

from __future__ import annotations

from typing import Any

OVERVIEW = """\
MES serves open models that a team runs on its own machines. It loads and unloads models on \
demand, queues requests, and makes models answer in JSON that fits a JSON Schema.

The HTTP status describes the service, `success` describes the answer. A generation that finished \
but violates its schema gives status 200 with `success` false and the verdict in `code`. If the \
request could not be served, the response is a 4xx or 5xx with a problem document (RFC 9457) and a \
stable `code`.

Later versions may add fields to responses; ignore fields you do not know."""

# Each completes the sentence "The error occurs because ..."; also the detail of the examples.
ERROR_CAUSES = {
    "malformed_request": (
        "the request is not valid HTTP or not valid JSON, such as duplicate keys, NaN, invalid "
        "UTF-8 or an invalid Host header"
    ),
    "unauthorized": "the key is missing or wrong",
    "forbidden": "the key lacks the scope that the detail names",
    "not_found": "the path does not exist",
    "model_not_found": "the model is not in the catalog or is disabled there",
    "model_not_pulled": "the runtime does not have the model; pull it",
    "not_waiting": "no request with this id waits: it is running, has ended or was never received",
    "request_timeout": "the request did not arrive in time",
    "model_busy": "the running requests of the model did not end in time",
    "content_too_large": "the body is larger than `MAX_BODY_BYTES`",
    "uri_too_long": "the request line is too long",
    "unsupported_media_type": "the body is not uncompressed `application/json` in UTF-8",
    "misdirected_request": (
        "the host name of the request is neither localhost nor in `ALLOWED_HOSTS`"
    ),
    "expectation_failed": "the Expect header is not `100-continue`",
    "request_invalid": "one or more fields are invalid; `errors` lists them",
    "schema_invalid": "`json_schema` is not a valid JSON Schema; `errors` lists the places",
    "schema_unsafe": (
        "validation against `json_schema` could hang, read other resources or cost too much"
    ),
    "prompt_too_long": "the prompt does not fit into the context of the model",
    "context_length_exceeded": "the prompt or an input does not fit into the context of the model",
    "rate_limited": "too many wrong keys came from this address; correct keys are still accepted",
    "headers_too_large": "the headers are too many or too long",
    "internal_error": "MES has a bug; its log has the traceback under the request id",
    "not_implemented": "the Transfer-Encoding is not `chunked`",
    "runtime_reply_invalid": "the runtime sent an invalid response",
    "generation_aborted": "the runtime aborted the generation",
    "pull_failed": "the runtime could not pull the model; the detail has its message",
    "queue_full": "too many requests wait; retry after `Retry-After` seconds",
    "queue_timeout": "the request waited too long for a permit; retry after `Retry-After` seconds",
    "state_dir_full": "`STATE_DIR` has no room; an operator must free some, then retry",
    "service_busy": (
        "too many requests without a valid key are open, from this address or from all; those with "
        "a key are served"
    ),
    "state_locked": (
        "a process that does not run holds the lock on the state; retry after `Retry-After` seconds"
    ),
    "shutting_down": "MES stops or restarts; retry after `Retry-After` seconds",
    "runtime_unavailable": "the runtime cannot be reached; retry after `Retry-After` seconds",
    "model_unavailable": (
        "the model failed to load and is in its cooldown; the detail has the reason"
    ),
    "generation_timeout": (
        "the generation took longer than `timeout`; the detail has the seconds, the setting and "
        "the number of tokens by then"
    ),
    "load_timeout": "loading the model took longer than `LOAD_TIMEOUT`",
}

_MODEL = "Id of a model in the catalog. Spelling variants are matched as in Ollama."
_RUNTIME_DEFAULT = "Default: that of the runtime."
_NO_EFFECT = "Accepted, but without effect: the response lists it in `mes.ignored`."
_DEFAULT_ONLY = "Only the default value is supported."
_NOT_SUPPORTED = "Accepted as null; other values are not supported."

# Fields by name; a name has the same meaning in all requests.
REQUEST_FIELDS = {
    "model_id": _MODEL,
    "prompt": (
        "Text of the prompt. Required, unless there are `messages`. `/v1/completions` also accepts "
        "a list of texts, and token ids."
    ),
    "messages": "A conversation instead of a prompt. The model answers its last message.",
    "stream": "Whether the response is a stream of events.",
    "think": (
        "Whether a reasoning model thinks before its answer, or how much. A model without levels "
        "thinks as with true. Default: false."
    ),
    "logprobs": (
        "Whether the response has the probability of each token; in OpenAI's completions, the "
        "number of likeliest tokens at each place."
    ),
    "top_logprobs": "Number of likeliest tokens that the response has at each place.",
    "system_prompt": "System prompt, with `prompt`.",
    "temperature": "Temperature of the sampling. Default: that of the model in the catalog.",
    "max_tokens": "Most tokens of the answer. Default: that of the model in the catalog.",
    "top_p": f"Nucleus sampling. {_RUNTIME_DEFAULT}",
    "top_k": f"Sampling from the k likeliest tokens; 0 and -1: from all. {_RUNTIME_DEFAULT}",
    "min_p": f"Least probability relative to the likeliest token. {_RUNTIME_DEFAULT}",
    "seed": (
        "Seed of the sampling, of 64 bits; those that do not fit into 31 bits are taken modulo "
        "2^31. -1, like the default: a random one. The response has the seed that was used."
    ),
    "stop": "Strings that end the answer: one string, or a list of up to 64.",
    "repeat_penalty": f"Penalty for repeated tokens. {_RUNTIME_DEFAULT}",
    "presence_penalty": f"Penalty for tokens that have occurred. {_RUNTIME_DEFAULT}",
    "frequency_penalty": f"Penalty for tokens that occur often. {_RUNTIME_DEFAULT}",
    "json_schema": "JSON Schema (draft 4 to 2020-12) that the answer must fit.",
    "max_attempts": (
        "With a schema: the maximum number of generations. Default: that of the model in the "
        "catalog, or 2."
    ),
    "constrain": "With a schema: whether decoding is constrained. Default: true.",
    "timeout": (
        "Timeout of the generation in seconds, without the time in the queue and the load. "
        "Default: that of the model in the catalog, else `DEFAULT_TIMEOUT`: 600, in which a model "
        "with 2 tokens a second generates the 1000 tokens of the default `max_tokens`."
    ),
    "model": _MODEL,
    "stream_options": (
        "`include_usage`: whether the stream ends with the usage. `continuous_usage_stats`: "
        "whether each chunk has the usage so far."
    ),
    "max_completion_tokens": "The newer name of `max_tokens`.",
    "n": "Number of choices for each prompt. Their seeds are `seed`, `seed` + 1 and so on.",
    "best_of": "1, or as many as `n`; all choices are returned.",
    "echo": "The prompt cannot be included in the answer.",
    "suffix": "A text after the completion is not supported; an empty one is accepted.",
    "logit_bias": "A bias for tokens is not supported.",
    "modalities": "Only text is supported.",
    "response_format": "Form of the answer: text, any JSON object, or JSON that fits a schema.",
    "tools": "Functions that the model may call.",
    "tool_choice": (
        "Whether the model may, must not or must call a function (`auto`, `none`, `required`), or "
        "the function that it must call. A call that must be made is asked for like an answer "
        "with a schema."
    ),
    "parallel_tool_calls": (
        "Whether the answer may have several calls. If false, those after the first are left out."
    ),
    "reasoning_effort": "How much a reasoning model thinks before its answer. Default: `none`.",
    "reasoning": "`effort` is another name of `reasoning_effort`.",
    "chat_template_kwargs": "`enable_thinking` or `thinking`: whether a reasoning model thinks.",
    "repetition_penalty": "Another name of `repeat_penalty`.",
    "ignore_eos": (
        "With the embedded runtime and without a schema: the answer ends only at its limit of "
        "tokens or at a stop string. With Ollama without effect: the response lists it in "
        "`mes.ignored`."
    ),
    "min_tokens": _NO_EFFECT,
    "keep_alive": _NO_EFFECT,
    "priority": _NO_EFFECT,
    "request_id": f"{_NO_EFFECT} Send the header `X-Request-ID`.",
    "cache_salt": _NO_EFFECT,
    "use_beam_search": _DEFAULT_ONLY,
    "length_penalty": _DEFAULT_ONLY,
    "early_stopping": _DEFAULT_ONLY,
    "stop_token_ids": _DEFAULT_ONLY,
    "bad_words": _DEFAULT_ONLY,
    "include_stop_str_in_output": _DEFAULT_ONLY,
    "skip_special_tokens": _DEFAULT_ONLY,
    "spaces_between_special_tokens": _DEFAULT_ONLY,
    "prompt_logprobs": _NOT_SUPPORTED,
    "truncate_prompt_tokens": _NOT_SUPPORTED,
    "guided_json": f"{_NOT_SUPPORTED} `response_format` is.",
    "guided_choice": _NOT_SUPPORTED,
    "guided_regex": _NOT_SUPPORTED,
    "guided_grammar": _NOT_SUPPORTED,
    "structured_outputs": f"{_NOT_SUPPORTED} `response_format` is.",
    "mes": "Parameters that OpenAI's API does not have: `max_attempts`, `constrain`, `timeout`.",
    "user": _NO_EFFECT,
    "store": f"{_NO_EFFECT} Responses are not stored.",
    "service_tier": _NO_EFFECT,
    "metadata": _NO_EFFECT,
    "safety_identifier": _NO_EFFECT,
    "prompt_cache_key": _NO_EFFECT,
    "prompt_cache_retention": _NO_EFFECT,
    "verbosity": _NO_EFFECT,
    "prediction": _NO_EFFECT,
    "audio": _NOT_SUPPORTED,
    "functions": f"{_NOT_SUPPORTED} `tools` are.",
    "function_call": f"{_NOT_SUPPORTED} `tool_choice` is.",
    "web_search_options": _NOT_SUPPORTED,
    "input": "A text, or a list of up to 2048 texts. Texts that are too long are refused.",
    "encoding_format": "Encoding of the vectors. Default: `float`; `base64` is shorter.",
    "instances": "JSON values to validate against the schema, 1 to 1,000.",
    "dimensions": "Length of the vectors, which are cut and normalised to length 1 again.",
}

# Description and example.
PATH_PARAMETERS = {
    "model_id": (
        "Id of a model in the catalog; `/` may be sent unchanged or as `%2F`.",
        "smollm2:135m",
    ),
    "request_id": ("The `X-Request-ID` that the request was sent with.", "run-7.prompt-12"),
}

_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
    "required": ["name", "age"],
}

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

# Requests by endpoint; all of them can be sent unchanged.
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
    "schema_validation.validate_instances": {
        "instances": {
            "json_schema": _PERSON,
            "instances": [{"name": "John Smith", "age": 25}, {"name": "Jane Doe", "age": "30"}],
        },
    },
    "checks.check": {"schema": {"json_schema": _PERSON, "model_id": "smollm2:135m"}},
}

# Descriptions by name of the blueprint.
TAGS = {
    "health": "Health, readiness and the state of the service and its models.",
    "models": "List, load, unload and delete models.",
    "pull": "Pull models onto the runtime's disk.",
    "queue": "Positions of waiting requests.",
    "settings": "Settings that the service uses.",
    "checks": "Check JSON Schemas without a generation.",
    "schema_validation": "Validate JSON values with two validators.",
    "metrics": "Metrics for Prometheus.",
    "docs": "This documentation.",
    "inference": "Generate text or JSON.",
    "chat": "Chat completions in OpenAI's format.",
    "completions": "Completions of a prompt in OpenAI's older format.",
    "embeddings": "Vectors of texts in OpenAI's format.",
}
