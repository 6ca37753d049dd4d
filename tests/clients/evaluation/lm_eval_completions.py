"""lm-eval through `local-completions`: prompts as token ids (its default), and lists of texts."""

import json
import os
from pathlib import Path

from capitals import evaluate
from local_tokenizer import write_tokenizer

MODEL = {"model": "smollm2:135m", "base_url": os.environ["OPENAI_BASE_URL"] + "/completions"}

# In the place of the model's page in a hub.
tokenizer = {"tokenizer": str(write_tokenizer(Path("tokenizer")))}
done = {
    "token_ids": evaluate("local-completions", model_args={**MODEL, **tokenizer}),
    "batches_of_texts": evaluate(
        "local-completions",
        model_args={**MODEL, **tokenizer, "tokenized_requests": False},
        batch_size=2,
    ),
}
print(json.dumps(done))
