"""What screening and judging cost a request, over the schemas and instances of JSONSchemaBench.

    python -m bench.judging
    MES_TEST_DATA=/where/the/data/is python -m bench.judging --rounds 10

Cold is a first request with a schema: screened, compiled, its mode chosen, the answer judged. Warm
is every later one: the schema is found by its content. Beside it `jsonschema`, which checks the
schema, parses the answer and lists its errors; warm it has its validator already.

Times are CPU times of the thread, for each instance the median of the rounds.
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

# Of MES, in milliseconds: the median and the 99th percentile.
TARGETS = (3.0, 25.0)

Work = Callable[[], object]

# A schema is remembered together with the limits that it passed: under new ones it is unknown.
_unused_fan_outs = itertools.count(structured.SchemaLimits().fan_out + 1)


@dataclass(frozen=True)
class Cost:
    """What one instance cost in one way, in milliseconds."""

    name: str
    milliseconds: float


def request(schema: dict[str, Any], text: str, limits: structured.SchemaLimits) -> None:
    """What one request asks of the room, and nothing else."""
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


def peer_cold(case: Case, text: str) -> Iterator[Work]:
    while True:
        yield lambda: errors(checked(case.schema), text)


def peer_warm(case: Case, text: str) -> Iterator[Work]:
    validator = checked(case.schema)
    while True:
        yield lambda: errors(validator, text)


def checked(schema: dict[str, Any]) -> Validator:
    validator = oracle(schema)
    validator.check_schema(schema)
    return validator


def errors(validator: Validator, text: str) -> list[Any]:
    return list(validator.iter_errors(json.loads(text)))


WAYS = {"MES, cold": cold, "MES, warm": warm, "jsonschema, cold": peer_cold,
        "jsonschema, warm": peer_warm}  # fmt: skip


def main() -> None:
    options = _options()
    accepted = [case for case in cases() if passes(case)]
    instances = sum(len(case.instances) for case in accepted)
    if not instances:
        raise SystemExit("JSONSchemaBench is not at hand; MES_TEST_DATA names its folder")
    print(f"{len(accepted)} of {len(cases())} schemas, {instances} instances; CPU ms\n")
    print(f"{'':18} {'median':>8} {'p99':>8} {'max':>8}   the slowest")
    costs = {name: list(measure(way, accepted, options.rounds)) for name, way in WAYS.items()}
    shown = {name: show(name, each) for name, each in costs.items()}
    print()
    for state in ("cold", "warm"):
        ours, theirs = shown[f"MES, {state}"], shown[f"jsonschema, {state}"]
        ratios = "  ".join(f"{b / a:.1f}" for a, b in zip(ours, theirs, strict=True))
        print(f"jsonschema / MES, {state}: {ratios}  (median, p99)")
        met = all(cost <= most for cost, most in zip(ours, TARGETS, strict=True))
        print(f"at most 3 ms and 25 ms, {state}: {'yes' if met else 'NO'}")


def passes(case: Case) -> bool:
    try:
        structured.check_schema(case.schema)
    except MesError as exc:
        print(f"refused: {case.name}: {exc.detail}")
        return False
    return True


def measure(
    way: Callable[[Case, str], Iterator[Work]], accepted: list[Case], rounds: int
) -> Iterator[Cost]:
    for case in accepted:
        for instance in case.instances:
            works = way(case, json.dumps(instance.value))
            times = [timed(next(works)) for _ in range(rounds)]
            yield Cost(case.name, statistics.median(times))


def timed(work: Work) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


def show(name: str, costs: list[Cost]) -> tuple[float, float]:
    times = sorted(cost.milliseconds for cost in costs)
    median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    slowest = max(costs, key=lambda cost: cost.milliseconds)
    print(f"{name:18} {median:8.3f} {p99:8.3f} {times[-1]:8.3f}   {slowest.name}")
    return median, p99


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="for each instance (5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
