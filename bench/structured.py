"""Structured output, live: how many answers fit their schema, from the runtime and through MES.

    python -m bench.structured                    # the embedded runtime, some minutes
    python -m bench.structured --schemas 10
    python -m bench.structured --runtime http://127.0.0.1:11434 --model gemma3:270m

The same prompts, seeds and options, at temperature 0: straight to the runtime with the schema as
`format`; through MES with one attempt; through MES with up to three. What counts as valid is said
by `jsonschema`, which shares no code with the judge of MES. The schemas are easy ones of
JSONSchemaBench; MES_TEST_DATA names the folder where it is.

Each schema on which MES differs from the runtime is named, with the story of its attempts. Where
its first attempt under `grammar` differs, the request was the same: what the runtime was asked
before may change its answer, even at temperature 0.
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

# The third fills up what the first two have too few of.
SUBSETS = ("Github_easy", "Glaiveai2K", "Github_trivial")
CONTEXT = 4096
# Without a penalty a small model that takes the likeliest token repeats itself until it is cut off.
SAMPLING = {"temperature": 0, "repeat_penalty": 1.15}


@dataclass(frozen=True)
class Outcome:
    """What came of one question; `claimed` is that MES called it a success."""

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


def question(case: Case) -> str:
    schema = case.schema
    what = schema.get("title") or schema.get("description") or "a record"
    fields = ", ".join(schema.get("properties", {}))
    return f"Write one short, realistic example in JSON of: {what}. Its fields: {fields}."


def straight(url: str, model: str, tokens: int) -> Ask:
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
        valid, counted = fits(answer["response"], case), answer["eval_count"]
        return Outcome(case, valid, False, 1, counted, seconds, answer["done_reason"])

    return ask


def through_mes(service: Service, model: str, attempts: int) -> Ask:
    def ask(case: Case, seed: int) -> Outcome:
        body = {**SAMPLING, "json_schema": case.schema, "max_attempts": attempts, "seed": seed}
        began = time.perf_counter()
        response = service.infer(model, question(case), **body, timeout=600, http={"timeout": 600})
        seconds = time.perf_counter() - began
        told = response.json()
        if response.status_code != 200:
            return Outcome(case, False, False, 1, 0, seconds, f"{told['code']}: {told['detail']}")
        valid = told["success"] and fits(json.dumps(told["parsed"]), case)
        return Outcome(case, valid, told["success"], told["structured"]["attempts"],
                       told["usage"]["completion_tokens"], seconds, story(told))  # fmt: skip

    return ask


def fits(text: str, case: Case) -> bool:
    """The independent opinion on an answer."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(oracle(case.schema).is_valid(value))


def story(told: dict[str, Any]) -> str:
    """Each attempt: its mode, its verdict and what was wrong first."""
    return "; ".join(
        f"{each['mode']} {each['verdict']}"
        + "".join(f" ({error['pointer']} {error['detail']})" for error in each["errors"][:1])
        for each in told["structured"]["attempt_details"]
    )


def chosen(number: int) -> list[Case]:
    found = [case for subset in SUBSETS for case in cases() if case.subset == subset]
    if len(found) < number:
        raise SystemExit(f"JSONSchemaBench has {len(found)} such schemas; see MES_TEST_DATA")
    return found[:number]


def main() -> None:
    options = _options()
    subjects = chosen(options.schemas)
    # On cores that others use too, two threads would spin for each other.
    os.environ.setdefault("EMBEDDED_THREADS", "1")
    runtime = nullcontext(options.runtime) if options.runtime else embedded([options.model], 1)
    entry = {"context_window": CONTEXT, "max_tokens": options.tokens}
    with (
        runtime as url,
        tempfile.TemporaryDirectory() as folder,
        Service(Path(folder), ollama_url=url, models={options.model: entry}) as service,
    ):
        service.wait_until_ready()
        ways = {
            "the runtime alone": straight(url, options.model, options.tokens),
            "MES, one attempt": through_mes(service, options.model, 1),
            "MES, up to three": through_mes(service, options.model, 3),
        }
        ways["MES, one attempt"](subjects[0], 0)  # loads the model
        outcomes = {name: answers(ask, subjects) for name, ask in ways.items()}
    table(outcomes)
    compare(*outcomes.values())


def answers(ask: Ask, subjects: list[Case]) -> list[Outcome]:
    """One after the other: in one batch with others a greedy answer may differ."""
    outcomes = []
    for seed, case in enumerate(subjects):
        outcomes.append(ask(case, seed))
        print(f"\r{seed + 1}/{len(subjects)} ", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    return outcomes


def table(outcomes: dict[str, list[Outcome]]) -> None:
    print(f"{'':18} {'valid':>12} {'attempts':>9} {'tokens':>7} {'seconds':>8}   (means)")
    for name, all_of_them in outcomes.items():
        number = len(all_of_them)
        valid = sum(each.valid for each in all_of_them)
        attempts, tokens, seconds = (
            sum(getattr(each, what) for each in all_of_them) / number
            for what in ("attempts", "tokens", "seconds")
        )
        share = f"{valid}/{number} {valid / number:4.0%}"
        print(f"{name:18} {share:>12} {attempts:9.2f} {tokens:7.0f} {seconds:8.2f}")


def compare(alone: list[Outcome], once: list[Outcome], thrice: list[Outcome]) -> None:
    """Say whether the promises hold, schema by schema; exits with 1 where they do not."""
    for title, ours in (("one attempt", once), ("up to three", thrice)):
        for runtime, mes in zip(alone, ours, strict=True):
            if runtime.valid != mes.valid:
                print(f"{'runtime' if runtime.valid else 'MES'} only, {title}: {mes}")
    for mes in thrice:
        if not mes.valid:
            print(f"never valid: {mes}")
    claims = [each for each in once + thrice if each.claimed]
    lies = [each for each in claims if not each.valid]
    least = sum(each.valid for each in alone)
    kept = {
        "MES is never below the runtime": all(
            sum(each.valid for each in ours) >= least for ours in (once, thrice)
        ),
        f"of {len(claims)} successes {len(claims) - len(lies)} validate": not lies,
    }
    for operation, holds in kept.items():
        print(f"{operation}: {'yes' if holds else 'NO'}")
    raise SystemExit(not all(kept.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtime", metavar="URL", help="an Ollama (default: the embedded one)")
    parser.add_argument("--model", default="smollm2:135m", help="(smollm2:135m)")
    parser.add_argument("--schemas", type=int, default=40, help="how many to ask about (40)")
    parser.add_argument("--tokens", type=int, default=200, help="the most in a first answer (200)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
