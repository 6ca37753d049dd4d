"""The soak test: full load and injected faults for a while, and a report on each guarantee.

    python -m bench.soak                        # 30 minutes
    python -m bench.soak --minutes 2 --seed 7   # a short one, with the seed of an earlier one
    python -m bench.soak --json soak.json       # writes the report as JSON too

Runs the real service with a runtime that fails on demand: several models, memory for some of them,
clients that send requests of all kinds and hang up, also schemas with huge counts. Meanwhile, at
random times, the service is reloaded, workers are killed or stopped, the runtime is restarted, it
answers with errors, models are deleted or updated while they are loaded or are not unloaded, and
many clients ask for answers that they do not read. Exits with 1 if a guarantee was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.soak_test import report
from bench.soak_test.environment import MODELS, start_service
from bench.soak_test.fault_injection import FaultInjector
from bench.soak_test.growth import Growth, ServiceUsage, renew, usage_after
from bench.soak_test.load import HUNG_UP, LoadGenerator, RequestOutcome, send_request
from bench.soak_test.metrics_check import MetricsCheck, Scrape, scrape
from bench.soak_test.request_mix import plain
from bench.soak_test.verdicts import SoakResult
from tests.integration.helpers import LOST, leaks, wait_until_at_rest
from tests.support.service import FakeOllama, Service

# Internal errors of MES, which no injected fault may cause.
_NEVER_LOGGED = ("internal_error", "leader_failed")
_WARM_UP_SECONDS = 20.0


def soak(minutes: float, clients: int, seed: int) -> SoakResult:
    """Warm up, run load and faults, and check the state that is left."""
    with start_service() as (service, runtime):
        (usage_before,) = _usages(service, runtime, (_WARM_UP_SECONDS,), clients)
        load = LoadGenerator(service, seed)
        fault_injector = FaultInjector(service, runtime, random.Random(seed))
        before = scrape(service)
        with load.running(clients):
            fault_injector.run(minutes)
        left_over = _left_over(service, runtime)
        metrics_check = _metrics_check(before, scrape(service), load.outcomes, fault_injector)
        left_over |= _unserved(service)
        fault_injector.runtime_counters.add(runtime.stats())
        seconds = (_WARM_UP_SECONDS, minutes * 6)
        later = (None, None) if left_over else _usages(service, runtime, seconds, clients)
        return SoakResult(
            seed=seed,
            minutes=minutes,
            outcomes=load.outcomes,
            fault_injector=fault_injector,
            metrics_check=metrics_check,
            growth=Growth(usage_before, *later),
            left_over=left_over,
            errors_logged=list(_errors_logged(service)),
        )


def _usages(
    service: Service, runtime: FakeOllama, seconds: tuple[float, ...], clients: int
) -> list[ServiceUsage]:
    """Replace all workers. Return the resource usage after each of these periods of load."""
    renew(service, runtime)
    return [usage_after(each, LoadGenerator(service, seed=0), clients) for each in seconds]


def _metrics_check(
    before: Scrape, after: Scrape, outcomes: list[RequestOutcome], fault_injector: FaultInjector
) -> MetricsCheck:
    unanswered = [each for each in outcomes if each.status in (LOST, HUNG_UP)]
    lost_with_worker = sum(map(fault_injector.may_have_lost, unanswered))
    return MetricsCheck(before, after, outcomes, lost_with_worker)


def _left_over(service: Service, runtime: FakeOllama) -> dict[str, object]:
    """Return the state that is left when no request is open, such as permits."""
    try:
        wait_until_at_rest(service, seconds=30)
    except AssertionError:
        return leaks(service)
    current = {name: model["current"] for name, model in runtime.stats()["models"].items()}
    return {name: f"{count} in the runtime" for name, count in current.items() if count}


def _unserved(service: Service) -> dict[str, object]:
    outcomes = [send_request(service, plain(model)) for model in MODELS]
    return {each.model: each.outcome for each in outcomes if each.status != 200}


def _errors_logged(service: Service) -> Iterator[str]:
    with service.output.open(errors="replace") as lines:
        for line in lines:
            if not line.startswith("{") or json.loads(line)["event"] in _NEVER_LOGGED:
                yield line.strip()


def main() -> None:
    options = _options()
    print(f"{options.minutes:g} minutes; repeat with --seed {options.seed}", flush=True)
    document = report.document(soak(options.minutes, options.clients, options.seed))
    print(report.text(document))
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1))
    sys.exit(not document["kept"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of full load (30)")
    parser.add_argument("--clients", type=int, default=24, help="with one request open each (24)")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of all random choices (the time)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
