"""Inspect: a model calls a function, and answers with its result."""

import json
import os

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool

os.environ["MES_BASE_URL"] = os.environ["OPENAI_BASE_URL"]
os.environ["MES_API_KEY"] = os.environ["OPENAI_API_KEY"]


@tool
def add():
    async def execute(x: int, y: int) -> int:
        """Add two numbers.

        Args:
            x: The first number.
            y: The second number.
        """
        return x + y

    return execute


task = Task(
    [Sample("What is 2 + 3?", target="5")], solver=[use_tools(add()), generate()], scorer=includes()
)
(log,) = evaluate(task, model="openai-api/mes/llama3.1:8b", display="none", log_dir="logs")
assert log.status == "success", log.error
messages = [{"role": each.role, "text": each.text} for each in log.samples[0].messages]
print(json.dumps({"messages": messages}))
