"""A task of lm-eval with two questions, read from files as a task of a user is."""

import json
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

_TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "What is the capital of {{country}}?"
doc_to_target: "{{capital}}"
metric_list: [{metric: exact_match}]
"""
_CAPITALS = {"France": "Paris", "Italy": "Rome"}


def evaluate(model, *, generation="", **options):
    """Run the task. Return the text of the model for each country, as lm-eval has read it.

    Args:
        generation: The line `generation_kwargs` of the task, or none.
        options: For lm-eval: `model_args`, `batch_size`, `apply_chat_template`.
    """
    data = Path("questions.jsonl").resolve()
    rows = [{"country": country, "capital": capital} for country, capital in _CAPITALS.items()]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("capitals.yaml").write_text(_TASK.replace("DATA", str(data)) + generation)
    tasks = TaskManager(include_path=str(Path.cwd()), include_defaults=False)
    results = lm_eval.simple_evaluate(model, tasks=["capitals"], task_manager=tasks, **options)
    samples = results["samples"]["capitals"]
    assert all("exact_match" in sample for sample in samples)
    return {sample["doc"]["country"]: sample["resps"][0][0] for sample in samples}
