"""lighteval: one question through the client of `lighteval endpoint litellm`.

The command itself first loads all of its tasks, some of which download files.
"""

import json
import os

from lighteval.models.endpoints.litellm_model import LiteLLMClient, LiteLLMModelConfig
from lighteval.tasks.requests import Doc, SamplingMethod

config = LiteLLMModelConfig(
    model_name="openai/smollm2:135m",
    base_url=os.environ["OPENAI_BASE_URL"],
    max_model_length=4096,
    api_max_retry=1,
    cache_dir="cache",
)
question = Doc(
    query="What is the capital of France?",
    choices=["Paris"],
    gold_index=0,
    task_name="capitals|0",
    id="1",
    generation_size=16,
    stop_sequences=["\n\n"],
    sampling_methods=[SamplingMethod.GENERATIVE],
)
(response,) = LiteLLMClient(config).greedy_until([question])
print()
print(json.dumps({"answers": response.text}))
