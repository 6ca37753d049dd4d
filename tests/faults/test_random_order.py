"""All faults in random order, several at a time and many times: they leave nothing behind."""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from itertools import chain

from tests.faults.client import Client
from tests.faults.conftest import WAIT_SLOTS, WORKERS
from tests.faults.fault import Fault
from tests.faults.resource_usage import (
    ResourceUsage,
    log_line_counts,
    wait_until_idle,
    wait_until_logged,
)
from tests.faults.runtime_faults import SILENCE
from tests.faults.table import FAULTS
from tests.integration.helpers import held, wait_until_at_rest
from tests.support.process import wait_until

TIMES = int(os.environ.get("MES_TEST_FAULTS", 200))
SEED = int(os.environ.get("MES_TEST_SEED", 0)) or random.SystemRandom().getrandbits(32)
CLIENTS = 6
GROWTH = 0.05
# A leak grows in each round. Python's pools of small objects are emptier at one time than at
# another, and a request with 60,000 objects changes them, so one round without growth is enough.
ROUNDS = 3
# The number of idle connections to the runtime that a worker keeps changes.
SPARE = {"descriptors": 2 * WORKERS}

_alone = threading.Lock()


def test_faults_in_random_order_leave_nothing_behind(service, runtime):
    print(f"\nMES_TEST_SEED={SEED} MES_TEST_FAULTS={TIMES}")
    rng = random.Random(SEED)
    # Before the first measurement each worker gets all faults, several at a time.
    provoke_all(service, [*rng.sample(FAULTS, len(FAULTS)), *draw(rng, TIMES)], rng)
    fill_wait_slots(service)
    before, workers = usage_at_rest(service, runtime), service.worker_pids()

    for _ in range(ROUNDS):
        lines_before = log_line_counts(service)
        ids = provoke_all(service, draw(rng, TIMES), rng) + fill_wait_slots(service)

        wait_until_logged(service, ids)
        assert (log_line_counts(service) - lines_before).total() == len(ids)
        after = usage_at_rest(service, runtime)
        print(f"before {before}\nafter  {after}")
        assert after.files == before.files
        if not (grown := growth(before, after)):
            break
        before = after
    assert not grown
    assert service.worker_pids() == workers
    good = Client(service).infer()
    assert (good.status, good.seconds < 10) == (200, True)
    assert service.log_lines("internal_error") == service.other_lines() == []


def draw(rng: random.Random, times: int) -> list[Fault]:
    """Return random faults; all cases of the catalogue are equally likely."""
    cases = defaultdict(list)
    for fault in FAULTS:
        cases[fault.case].append(fault)
    return [rng.choice(each) for each in rng.choices(list(cases.values()), k=times)]


def growth(before: ResourceUsage, after: ResourceUsage) -> dict[str, int]:
    """Return the resources of which more are in use than are allowed."""
    most = {name: used * (1 + GROWTH) + SPARE.get(name, 0) for name, used in asdict(before).items()}
    return {name: used for name, used in asdict(after).items() if used > most[name]}


def provoke_all(service, faults: Iterable[Fault], rng: random.Random) -> list[str]:
    """Provoke the faults, several at a time. Return the ids of all requests."""

    def provoke(fault: Fault, client: Client) -> list[str]:
        try:
            with _alone if fault.alone else nullcontext():
                fault.expected.assert_met_by(fault.provoke(client))
        except Exception as exc:
            exc.add_note(fault.id)
            raise
        return client.ids

    clients = [make_client(service, rng) for _ in faults]
    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(chain.from_iterable(threads.map(provoke, faults, clients)))


def make_client(service, rng: random.Random) -> Client:
    """Return a client with a random address, so that wrong keys of another do not count for it."""
    numbers = [rng.randrange(2, 250) for _ in range(3)]
    return Client(service, address="127.{}.{}.{}".format(*numbers), seed=rng.getrandbits(64))


def fill_wait_slots(service) -> list[str]:
    """Take all wait slots and release them, so that each worker has started all its threads.

    Few connections to the runtime stay open. Return the ids of all requests.
    """
    client = Client(service, seed=random.getrandbits(64))
    with ExitStack() as exchanges:
        while (taken := held(service, "permits")) < WORKERS * WAIT_SLOTS:
            exchanges.enter_context(client.open_inference(SILENCE, timeout=600))
            wait_until(lambda n=taken: held(service, "permits") > n or ended(service, client))
    return client.ids


def ended(service, client: Client) -> bool:
    """Return whether the last request was refused by a worker without a free wait slot."""
    return client.ids[-1] in log_line_counts(service)


def usage_at_rest(service, runtime) -> ResourceUsage:
    """Return the resources that the service uses when no request is under way."""
    wait_until_at_rest(service)
    wait_until_idle(runtime)
    return ResourceUsage.at_rest(service)
