"""Inspect: text, structured output, prefill and several choices, each as an evaluation."""

import json
import os

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, ResponseSchema
from inspect_ai.scorer import includes
from inspect_ai.util import JSONSchema

os.environ["MES_BASE_URL"] = os.environ["OPENAI_BASE_URL"]
os.environ["MES_API_KEY"] = os.environ["OPENAI_API_KEY"]

FRANCE = "What is the capital of France?"
PERSON = JSONSchema(
    type="object",
    properties={"name": JSONSchema(type="string"), "age": JSONSchema(type="integer")},
    required=["name", "age"],
)
BEGUN = [ChatMessageUser(content=FRANCE), ChatMessageAssistant(content="The capital of France is")]


def task(name, sample, **config):
    return Task(
        [sample], scorer=includes(), config=GenerateConfig(max_tokens=60, **config), name=name
    )


TASKS = [
    task("text", Sample(FRANCE, target="Paris"), temperature=0.0, seed=7),
    task(
        "structured",
        Sample("Extract the person: John Smith is 25 years old", target='"John Smith"'),
        temperature=0.0,
        response_schema=ResponseSchema(name="person", json_schema=PERSON),
    ),
    task("prefill", Sample(BEGUN, target="Paris"), temperature=0.0),
    task("choices", Sample(FRANCE, target="Paris"), num_choices=3, temperature=1.0),
]

logs = evaluate(TASKS, model="openai-api/mes/smollm2:135m", display="none", log_dir="logs")
answers = {
    log.eval.task: [each.message.text for each in log.samples[0].output.choices] for log in logs
}
failures = {log.eval.task: str(log.error.message) for log in logs if log.error}
print(json.dumps({**answers, "failures": failures}))
