"""LiteLLM: two turns with a model that reasons, the first answer sent back as it came."""

import json
import os

import litellm

MODEL = {
    "model": "openai/llama3.1:8b",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "reasoning_effort": "high",
    "allowed_openai_params": ["reasoning_effort"],
    "num_retries": 0,
}
messages = [{"role": "user", "content": "How warm is Rome?"}]
first = litellm.completion(messages=messages, **MODEL).choices[0].message
messages += [first.model_dump(), {"role": "user", "content": "And Oslo?"}]
second = litellm.completion(messages=messages, **MODEL).choices[0].message
chunks = list(litellm.completion(messages=messages, stream=True, **MODEL))
streamed = litellm.stream_chunk_builder(chunks).choices[0].message
printed = {
    "reasoning": [each.reasoning_content for each in (first, second, streamed)],
    "content": [each.content for each in (first, second, streamed)],
}
print(json.dumps(printed))
