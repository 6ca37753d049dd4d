"""All faults again and again, in random order and several at a time: nothing of them is left."""

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
from tests.faults.conftest import SEATS, WORKERS
from tests.faults.fault import Fault
from tests.faults.household import Household, lines_of, wait_until_idle, wait_until_told
from tests.faults.table import FAULTS
from tests.faults.upstream import SILENCE
from tests.integration.helpers import held, wait_until_at_rest
from tests.support.process import wait_until

TIMES = int(os.environ.get("MES_TEST_FAULTS", 200))
SEED = int(os.environ.get("MES_TEST_SEED", 0)) or random.SystemRandom().getrandbits(32)
CLIENTS = 6
GROWTH = 0.05
# What faults leave behind they leave behind each time; but Python's pools of small objects are
# emptier at one time than at another, and 60,000 of them in one request leave their trace.
ROUNDS = 3
# Each worker keeps some connections to the runtime for later, at one time more than at another.
SPARE = {"descriptors": 2 * WORKERS}

_alone = threading.Lock()


def test_faults_in_random_order_leave_nothing_behind(service, runtime):
    print(f"\nMES_TEST_SEED={SEED} MES_TEST_FAULTS={TIMES}")
    dice = random.Random(SEED)
    # Each worker has had the worst of them, several at a time, before anything is measured.
    suffer(service, [*dice.sample(FAULTS, len(FAULTS)), *drawn(dice, TIMES)], dice)
    stretch(service)
    before, workers = settled(service, runtime), service.worker_pids()

    for _ in range(ROUNDS):
        lines_before = lines_of(service)
        ids = suffer(service, drawn(dice, TIMES), dice) + stretch(service)

        wait_until_told(service, ids)
        assert (lines_of(service) - lines_before).total() == len(ids)
        after = settled(service, runtime)
        print(f"before {before}\nafter  {after}")
        assert after.files == before.files
        if not (more := grown(before, after)):
            break
        before = after
    assert not more
    assert service.worker_pids() == workers
    good = Client(service).infer()
    assert (good.status, good.seconds < 10) == (200, True)
    assert service.log_lines("internal_error") == service.other_lines() == []


def drawn(dice: random.Random, times: int) -> list[Fault]:
    """So many, each case of the catalogue as likely as any other."""
    cases = defaultdict(list)
    for fault in FAULTS:
        cases[fault.case].append(fault)
    return [dice.choice(each) for each in dice.choices(list(cases.values()), k=times)]


def grown(before: Household, after: Household) -> dict[str, int]:
    """What there is more of than there may be."""
    most = {name: held * (1 + GROWTH) + SPARE.get(name, 0) for name, held in asdict(before).items()}
    return {name: held for name, held in asdict(after).items() if held > most[name]}


def suffer(service, faults: Iterable[Fault], dice: random.Random) -> list[str]:
    """Provoke them, several at a time; the ids of all requests that this took."""

    def provoke(fault: Fault, client: Client) -> list[str]:
        try:
            with _alone if fault.alone else nullcontext():
                fault.expected.assert_met_by(fault.provoke(client))
        except Exception as exc:
            exc.add_note(fault.id)
            raise
        return client.ids

    clients = [make_client(service, dice) for _ in faults]
    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(chain.from_iterable(threads.map(provoke, faults, clients)))


def make_client(service, dice: random.Random) -> Client:
    """From anywhere, so that the wrong keys of one do not count against another."""
    numbers = [dice.randrange(2, 250) for _ in range(3)]
    return Client(service, address="127.{}.{}.{}".format(*numbers), seed=dice.getrandbits(64))


def stretch(service) -> list[str]:
    """Take every seat and let them all go, so that no worker has done less than another.

    It leaves few connections to the runtime open, and as many threads as there will ever be.
    """
    client = Client(service, seed=random.getrandbits(64))
    with ExitStack() as wait_slots:
        while (taken := held(service, "permits")) < WORKERS * SEATS:
            wait_slots.enter_context(client.open_exchanges(SILENCE, timeout=600))
            wait_until(lambda n=taken: held(service, "permits") > n or ended(service, client))
    return client.ids


def ended(service, client: Client) -> bool:
    """It had asked a worker whose seats were taken."""
    return client.ids[-1] in lines_of(service)


def settled(service, runtime) -> Household:
    """What the service holds once nothing is under way."""
    wait_until_at_rest(service)
    wait_until_idle(runtime)
    return Household.at_rest(service)
