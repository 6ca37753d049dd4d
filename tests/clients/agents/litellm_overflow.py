"""LiteLLM: a prompt that is too long for the model raises the library's own error."""

import json
import os

import litellm

raised = {}
for stream in (False, True):
    try:
        litellm.completion(
            model="openai/smollm2:135m",
            api_base=os.environ["OPENAI_BASE_URL"],
            messages=[{"role": "user", "content": "many words " * 8000}],
            stream=stream,
            num_retries=0,
        )
    except Exception as error:
        raised[f"stream={stream}"] = type(error).__name__
print(json.dumps(raised))
