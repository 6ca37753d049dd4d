"""Structured output with a real model: the share of valid answers with and without MES.

    python -m bench.structured                    # the embedded runtime, some minutes
    python -m bench.structured --schemas 10
    python -m bench.structured --runtime http://127.0.0.1:11434 --model gemma3:270m

The same prompts, seeds and options, at temperature 0, are sent to the runtime with the schema as
`format`, through MES with one attempt, and through MES with up to three. `jsonschema`, which shares
no code with the validator of MES, decides which answers are valid. The schemas are easy ones of
JSONSchemaBench, whose folder MES_TEST_DATA names.

The report names each schema for which MES and the runtime differ, with its attempts. If the first
attempt under `grammar` differs although the request was the same, earlier requests have changed the
answer of the runtime, which can happen even at temperature 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.mixed import embedded, post
from tests.support.dataset import Case, cases
from tests.support.oracle import oracle
from tests.support.service import Service

# The third is used if the first two have too few schemas.
SUBSETS = ("Github_easy", "Glaiveai2K", "Github_trivial")
CONTEXT = 4096
# Without a penalty a small model at temperature 0 repeats itself until it is cut off.
SAMPLING = {"temperature": 0, "repeat_penalty": 1.15}


@dataclass(frozen=True)
class Outcome:
    """The result of one question; `claimed` means that MES reported a success."""

    case: Case
    valid: bool
    claimed: bool
    attempts: int
    tokens: int
    seconds: float
    note: str

    def __str__(self) -> str:
        return f"{self.case.name}: {self.note}"


Ask = Callable[[Case, int], Outcome]
"""Ask for an example of the schema with a seed."""


def question(case: Case) -> str:
    schema = case.schema
    subject = schema.get("title") or schema.get("description") or "a record"
    fields = ", ".join(schema.get("properties", {}))
    return f"Write one short, realistic example in JSON of: {subject}. Its fields: {fields}."


def ask_runtime(url: str, model: str, tokens: int) -> Ask:
    def ask(case: Case, seed: int) -> Outcome:
        options = {**SAMPLING, "seed": seed, "num_predict": tokens, "num_ctx": CONTEXT}
        body = {"model": model, "prompt": question(case), "stream": False, "options": options}
        began = time.perf_counter()
        try:
            answer = post(f"{url}/api/generate", {**body, "format": case.schema})
        except urllib.error.HTTPError as exc:
            seconds = time.perf_counter() - began
            return Outcome(case, False, False, 1, 0, seconds, f"refused: {exc.read()[:120]!r}")
        seconds = time.perf_counter() - began
        valid, counted = is_valid(answer["response"], case), answer["eval_count"]
        return Outcome(case, valid, False, 1, counted, seconds, answer["done_reason"])

    return ask


def ask_mes(service: Service, model: str, attempts: int) -> Ask:
    def ask(case: Case, seed: int) -> Outcome:
        body = {**SAMPLING, "json_schema": case.schema, "max_attempts": attempts, "seed": seed}
        began = time.perf_counter()
        response = service.infer(model, question(case), **body, timeout=600, http={"timeout": 600})
        seconds = time.perf_counter() - began
        answer = response.json()
        if response.status_code != 200:
            note = f"{answer['code']}: {answer['detail']}"
            return Outcome(case, False, False, 1, 0, seconds, note)
        valid = answer["success"] and is_valid(json.dumps(answer["parsed"]), case)
        return Outcome(
            case=case,
            valid=valid,
            claimed=answer["success"],
            attempts=answer["structured"]["attempts"],
            tokens=answer["usage"]["completion_tokens"],
            seconds=seconds,
            note=describe_attempts(answer),
        )

    return ask


def is_valid(text: str, case: Case) -> bool:
    """Return whether the answer is valid for `jsonschema`."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(oracle(case.schema).is_valid(value))


def describe_attempts(answer: dict[str, Any]) -> str:
    """Return the mode, the verdict and the first error of each attempt."""
    return "; ".join(
        f"{each['mode']} {each['verdict']}"
        + "".join(f" ({error['pointer']} {error['detail']})" for error in each["errors"][:1])
        for each in answer["structured"]["attempt_details"]
    )


def choose_cases(number: int) -> list[Case]:
    found = [case for subset in SUBSETS for case in cases() if case.subset == subset]
    if len(found) < number:
        raise SystemExit(f"only {len(found)} schemas were found; set MES_TEST_DATA or --schemas")
    return found[:number]


def main() -> None:
    options = _options()
    selected = choose_cases(options.schemas)
    # With busy cores, two threads would waste time waiting for each other.
    os.environ.setdefault("EMBEDDED_THREADS", "1")
    runtime = nullcontext(options.runtime) if options.runtime else embedded([options.model], 1)
    entry = {"context_window": CONTEXT, "max_tokens": options.tokens}
    with (
        runtime as url,
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder), ollama_url=url, models={options.model: entry}) as service,
    ):
        service.wait_until_ready()
        methods = {
            "the runtime alone": ask_runtime(url, options.model, options.tokens),
            "MES, one attempt": ask_mes(service, options.model, 1),
            "MES, up to three": ask_mes(service, options.model, 3),
        }
        methods["MES, one attempt"](selected[0], 0)  # loads the model
        outcomes = {name: outcomes_of(ask, selected) for name, ask in methods.items()}
    print_table(outcomes)
    compare(*outcomes.values())


def outcomes_of(ask: Ask, selected: list[Case]) -> list[Outcome]:
    """Return the outcomes, asked one at a time: in a batch a greedy answer may differ."""
    outcomes = []
    for seed, case in enumerate(selected):
        outcomes.append(ask(case, seed))
        print(f"\r{seed + 1}/{len(selected)} ", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    return outcomes


def print_table(outcomes: dict[str, list[Outcome]]) -> None:
    print(f"{'':18} {'valid':>12} {'attempts':>9} {'tokens':>7} {'seconds':>8}   (means)")
    for name, results in outcomes.items():
        number = len(results)
        valid = sum(each.valid for each in results)
        attempts, tokens, seconds = (
            sum(getattr(each, field) for each in results) / number
            for field in ("attempts", "tokens", "seconds")
        )
        share = f"{valid}/{number} {valid / number:4.0%}"
        print(f"{name:18} {share:>12} {attempts:9.2f} {tokens:7.0f} {seconds:8.2f}")


def compare(alone: list[Outcome], once: list[Outcome], thrice: list[Outcome]) -> None:
    """Print the differences and the results of the checks; exit with 1 if a check fails."""
    for title, outcomes in (("one attempt", once), ("up to three", thrice)):
        for runtime, mes in zip(alone, outcomes, strict=True):
            if runtime.valid != mes.valid:
                print(f"{'runtime' if runtime.valid else 'MES'} only, {title}: {mes}")
    for mes in thrice:
        if not mes.valid:
            print(f"never valid: {mes}")
    checks = _checks(alone, once, thrice)
    for check, passed in checks.items():
        print(f"{check}: {'yes' if passed else 'NO'}")
    raise SystemExit(not all(checks.values()))


def _checks(alone: list[Outcome], once: list[Outcome], thrice: list[Outcome]) -> dict[str, bool]:
    claimed = [each for each in once + thrice if each.claimed]
    confirmed = sum(each.valid for each in claimed)
    least = sum(each.valid for each in alone)
    return {
        "MES is never below the runtime": all(
            sum(each.valid for each in outcomes) >= least for outcomes in (once, thrice)
        ),
        f"of {len(claimed)} successes {confirmed} validate": confirmed == len(claimed),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runtime", metavar="URL", help="an Ollama (default: the embedded runtime)"
    )
    parser.add_argument("--model", default="smollm2:135m", help="default: smollm2:135m")
    parser.add_argument("--schemas", type=int, default=40, help="number of schemas (default: 40)")
    parser.add_argument(
        "--tokens", type=int, default=200, help="max_tokens of the first attempt (default: 200)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
