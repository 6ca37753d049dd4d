"""GuideLLM: four requests of two streams with prompts and answers of a number of tokens."""

import json
import os
import subprocess
import sys
from pathlib import Path

from local_tokenizer import write_tokenizer

# In the place of the model's page in a hub.
tokenizer = write_tokenizer(Path("tokenizer").resolve())
backend = f"target={os.environ['OPENAI_BASE_URL']},api_key={os.environ['OPENAI_API_KEY']}"
options = {
    "backend": f"kind=openai_http,model=smollm2:135m,{backend}",
    "tokenizer": f"kind=hf_auto,model={tokenizer}",
    "data": "kind=synthetic_text,prompt_tokens=12,output_tokens=8",
    "profile": "kind=concurrent,streams=2",
    "constraint": "kind=max_requests,count=4",
    "output": "kind=json,path=results.json",
}
command = [sys.executable, "-m", "guidellm", "run", "--disable-console"]
subprocess.run(command + [f"--{name}={value}" for name, value in options.items()], check=True)
(benchmark,) = json.loads(Path("results.json").read_text())["benchmarks"]
print()
print(json.dumps({kind: len(benchmark["requests"][kind]) for kind in ("successful", "errored")}))
