"""GuideLLM: requests of two streams with prompts and answers of a number of tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

from local_tokenizer import write_tokenizer


def measure(request_format, tokenizer):
    """Run a benchmark of four requests. Return the number of successful and of failed ones."""
    address = f"target={os.environ['OPENAI_BASE_URL']},api_key={os.environ['OPENAI_API_KEY']}"
    options = {
        "backend": f"kind=openai_http,request_format={request_format},model=smollm2:135m,{address}",
        "tokenizer": f"kind=hf_auto,model={tokenizer}",
        "data": "kind=synthetic_text,prompt_tokens=12,output_tokens=8",
        "profile": "kind=concurrent,streams=2",
        "constraint": "kind=max_requests,count=4",
        "output": "kind=json,path=results.json",
    }
    command = [sys.executable, "-m", "guidellm", "run", "--disable-console"]
    subprocess.run(command + [f"--{name}={value}" for name, value in options.items()], check=True)
    (benchmark,) = json.loads(Path("results.json").read_text())["benchmarks"]
    return {kind: len(benchmark["requests"][kind]) for kind in ("successful", "errored")}


# In the place of the model's page in a hub.
tokenizer = write_tokenizer(Path("tokenizer").resolve())
done = {path: measure(path, tokenizer) for path in ("/v1/chat/completions", "/v1/completions")}
print()
print(json.dumps(done))
