"""lm-eval: a task without stops, as IFEval is, through `local-chat-completions`."""

import json
import os

from capitals import evaluate

done = evaluate(
    "local-chat-completions",
    generation="generation_kwargs: {until: [], do_sample: false, max_gen_toks: 16}",
    model_args={
        "model": "smollm2:135m",
        "base_url": os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    },
    apply_chat_template=True,
)
print(json.dumps(done))
