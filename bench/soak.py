"""The soak: full load for a while, and all the trouble there is; a report of what was promised.

    python -m bench.soak                        # 30 minutes
    python -m bench.soak --minutes 2 --seed 7   # the same in small; the seed of an earlier one
    python -m bench.soak --json soak.json       # the report for programs too

Runs the real service over a runtime that misbehaves on demand: several models, memory for some of
them, clients that ask for all sorts of things and hang up. Meanwhile, at random times, the service
is reloaded, workers are killed, the runtime dies and comes back, and it answers wrongly. Ends with
1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.soaking import report
from bench.soaking.account import Account, Page, scrape
from bench.soaking.clients import HUNG_UP, Crowd, Seen, ask
from bench.soaking.growth import Growth, Sizes, renew, sizes_after
from bench.soaking.stage import MODELS, stage
from bench.soaking.trouble import Trouble
from bench.soaking.verdicts import Soak
from bench.soaking.wishes import plain
from tests.integration.helpers import LOST, leaks, wait_until_at_rest
from tests.support.service import FakeOllama, Service

# Of MES itself, whatever befalls it.
_NEVER_LOGGED = ("internal_error", "leader_failed")
_WARM_UP_SECONDS = 20.0


def soak(minutes: float, clients: int, seed: int) -> Soak:
    """Warm up, soak, look what is left."""
    with stage() as (service, runtime):
        (small,) = _sizes(service, runtime, (_WARM_UP_SECONDS,), clients)
        crowd, trouble = Crowd(service, seed), Trouble(service, runtime, random.Random(seed))
        before = scrape(service)
        with crowd.at_work(clients):
            trouble.make(minutes)
        left_over = _left_over(service, runtime)
        account = _account(before, scrape(service), crowd.seen, trouble)
        left_over |= _unserved(service)
        trouble.records.add(runtime.stats())
        seconds = (_WARM_UP_SECONDS, minutes * 6)
        later = (None, None) if left_over else _sizes(service, runtime, seconds, clients)
        return Soak(
            seed=seed,
            minutes=minutes,
            seen=crowd.seen,
            trouble=trouble,
            account=account,
            growth=Growth(small, *later),
            left_over=left_over,
            complaints=list(_complaints(service)),
        )


def _sizes(
    service: Service, runtime: FakeOllama, seconds: tuple[float, ...], clients: int
) -> list[Sizes]:
    """Of new workers, each time after so many seconds more of load."""
    renew(service, runtime)
    return [sizes_after(each, Crowd(service, seed=0), clients) for each in seconds]


def _account(before: Page, after: Page, seen: list[Seen], trouble: Trouble) -> Account:
    taken = sum(s.status in (LOST, HUNG_UP) and trouble.took_along(s) for s in seen)
    return Account(before, after, seen, taken)


def _left_over(service: Service, runtime: FakeOllama) -> dict[str, object]:
    """What is still held once nobody asks for anything."""
    try:
        wait_until_at_rest(service, seconds=30)
    except AssertionError:
        return leaks(service)
    current = {name: model["current"] for name, model in runtime.stats()["models"].items()}
    return {name: f"{count} in the runtime" for name, count in current.items() if count}


def _unserved(service: Service) -> dict[str, object]:
    seen = [ask(service, plain(model)) for model in MODELS]
    return {each.model: each.outcome for each in seen if each.status != 200}


def _complaints(service: Service) -> Iterator[str]:
    with service.output.open(errors="replace") as lines:
        for line in lines:
            if not line.startswith("{") or json.loads(line)["event"] in _NEVER_LOGGED:
                yield line.strip()


def main() -> None:
    options = _options()
    print(f"soaking for {options.minutes:g} minutes; again with --seed {options.seed}", flush=True)
    told = report.document(soak(options.minutes, options.clients, options.seed))
    print(report.text(told))
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1))
    sys.exit(not told["kept"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of full load (30)")
    parser.add_argument("--clients", type=int, default=24, help="with one request open each (24)")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of all chance (the time)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
