"""EvalPlus: three samples of one problem, as from the command line of `evalplus.codegen`."""

import json
import os
from pathlib import Path

PROBLEM = {
    "prompt": 'def double(x):\n    """Return x * 2."""\n',
    "entry_point": "double",
    "canonical_solution": "    return x * 2\n",
    "contract": "",
    "base_input": [[1]],
    "plus_input": [[2]],
    "atol": 0,
}
PROBLEMS = 164  # EvalPlus refuses a data set with fewer


def write_problems(path):
    tasks = ({"task_id": f"HumanEval/{number}", **PROBLEM} for number in range(PROBLEMS))
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    # It is read when EvalPlus is imported.
    os.environ["HUMANEVAL_OVERRIDE_PATH"] = str(path)


def main():
    write_problems(Path("problems.jsonl"))
    from evalplus.codegen import run_codegen

    path = run_codegen(
        "smollm2:135m",
        "humaneval",
        backend="openai",
        base_url=os.environ["OPENAI_BASE_URL"],
        n_samples=3,
        temperature=0.8,
        id_range=[0, 1],
    )
    lines = Path(path.replace(".jsonl", ".raw.jsonl")).read_text().splitlines()
    print()
    print(json.dumps({"samples": [json.loads(line)["solution"] for line in lines]}))


main()
