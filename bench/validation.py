"""The CPU time of checking schemas and validating answers, measured with JSONSchemaBench.

    python -m bench.validation
    MES_TEST_DATA=/path/to/the/data python -m bench.validation --rounds 10

Cold is the first request with a schema: MES checks and compiles the schema, chooses the mode and
validates the answer. Warm is each later request, for which the schema is in the cache. For
comparison `jsonschema` checks the schema, parses the answer and lists its errors; warm it has its
validator already.

The times are CPU times of the thread: for each instance the median of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from jsonschema.protocols import Validator

from mes import structured
from mes.errors import MesError
from tests.support.dataset import Case, cases
from tests.support.oracle import oracle

# Targets of MES in milliseconds: the median and the 99th percentile.
TARGETS = (3.0, 25.0)

Work = Callable[[], object]

# A schema is cached together with the limits that it passed. New limits make a request cold.
_unused_fan_outs = itertools.count(structured.SchemaLimits().fan_out + 1)


@dataclass(frozen=True)
class InstanceTime:
    """The median time of one instance, with the name of its schema."""

    name: str
    milliseconds: float


def request(schema: dict[str, Any], text: str, limits: structured.SchemaLimits) -> None:
    """Do the work of one request in `mes.structured`, and nothing else."""
    checked = structured.check_schema(schema, limits)
    mode = checked.modes_for(constrain=True)[0]
    checked.validate_answer(text, "stop")
    checked.keywords(mode)


def cold(case: Case, text: str) -> Iterator[Work]:
    while True:
        limits = replace(structured.SchemaLimits(), fan_out=next(_unused_fan_outs))
        yield lambda limits=limits: request(case.schema, text, limits)


def warm(case: Case, text: str) -> Iterator[Work]:
    request(case.schema, text, structured.SchemaLimits())
    while True:
        yield lambda: request(case.schema, text, structured.SchemaLimits())


def jsonschema_cold(case: Case, text: str) -> Iterator[Work]:
    while True:
        yield lambda: errors(checked_validator(case.schema), text)


def jsonschema_warm(case: Case, text: str) -> Iterator[Work]:
    validator = checked_validator(case.schema)
    while True:
        yield lambda: errors(validator, text)


def checked_validator(schema: dict[str, Any]) -> Validator:
    validator = oracle(schema)
    validator.check_schema(schema)
    return validator


def errors(validator: Validator, text: str) -> list[Any]:
    return list(validator.iter_errors(json.loads(text)))


METHODS = {"MES, cold": cold, "MES, warm": warm, "jsonschema, cold": jsonschema_cold,
           "jsonschema, warm": jsonschema_warm}  # fmt: skip


def main() -> None:
    options = _options()
    accepted = [case for case in cases() if is_accepted(case)]
    instances = sum(len(case.instances) for case in accepted)
    if not instances:
        raise SystemExit("JSONSchemaBench was not found; set MES_TEST_DATA to its parent folder")
    print(f"{len(accepted)} of {len(cases())} schemas, {instances} instances; CPU ms\n")
    print(f"{'':18} {'median':>8} {'p99':>8} {'max':>8}   the slowest")
    times = {name: list(measure(each, accepted, options.rounds)) for name, each in METHODS.items()}
    results = {name: print_times(name, each) for name, each in times.items()}
    print()
    for state in ("cold", "warm"):
        compare(state, results[f"MES, {state}"], results[f"jsonschema, {state}"])


def is_accepted(case: Case) -> bool:
    try:
        structured.check_schema(case.schema)
    except MesError as exc:
        print(f"rejected: {case.name}: {exc.detail}")
        return False
    return True


def measure(
    method: Callable[[Case, str], Iterator[Work]], accepted: list[Case], rounds: int
) -> Iterator[InstanceTime]:
    for case in accepted:
        for instance in case.instances:
            works = method(case, json.dumps(instance.value))
            times = [milliseconds(next(works)) for _ in range(rounds)]
            yield InstanceTime(case.name, statistics.median(times))


def milliseconds(work: Work) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


def print_times(name: str, results: list[InstanceTime]) -> tuple[float, float]:
    """Print a row of the table; return the median and the 99th percentile."""
    times = sorted(each.milliseconds for each in results)
    median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    slowest = max(results, key=lambda each: each.milliseconds)
    print(f"{name:18} {median:8.3f} {p99:8.3f} {times[-1]:8.3f}   {slowest.name}")
    return median, p99


def compare(state: str, mes: tuple[float, float], other: tuple[float, float]) -> None:
    """Print how many times slower `jsonschema` is, and whether MES meets the targets."""
    ratios = "  ".join(f"{b / a:.1f}" for a, b in zip(mes, other, strict=True))
    print(f"jsonschema / MES, {state}: {ratios}  (median, p99)")
    met = all(each <= most for each, most in zip(mes, TARGETS, strict=True))
    print(f"at most 3 ms and 25 ms, {state}: {'yes' if met else 'NO'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per instance (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
