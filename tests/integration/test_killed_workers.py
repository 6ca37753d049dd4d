"""Killed workers: their permits and tickets are released at once."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from tests.integration.helpers import (
    LOST,
    answers,
    asked,
    burst,
    crowd,
    held,
    living,
    registry,
    wait_until_at_rest,
)
from tests.support.process import wait_until

MODEL = "mistral:7b"
KILLS = int(os.environ.get("MES_TEST_KILLS", 6))

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 3, "max_queue": 60, "timeout": 600}})


@pytest.fixture(autouse=True)
def _four_workers(service):
    wait_until(lambda: len(living(service)) == 4)


def worker_files(service):
    return {int(path.stem.partition("-")[0]) for path in (service.state_dir / "workers").iterdir()}


def test_a_killed_workers_permits_serve_others_within_a_second(service, runtime):
    runtime.control(first_token_ms=3000)
    calls = burst(service, MODEL, 30)
    wait_until(lambda: held(service, "tickets") == 27)
    wait_until(lambda: runtime.model(MODEL)["current"] == 3)
    runtime.control(first_token_ms=10)
    document = registry(service)
    owners = Counter(each["worker"] for each in document["permits"].values())
    victim = int(owners.most_common(1)[0][0].partition("-")[0])
    lost = held(service, "permits", victim) + held(service, "tickets", victim)
    service.kill_worker(victim)
    wait_until(lambda: runtime.model(MODEL)["generations"] > 3, seconds=1)
    statuses = Counter(answer.status for answer in answers(calls))
    assert statuses == {200: 30 - lost, LOST: lost}
    assert runtime.model(MODEL)["peak"] == 3
    wait_until_at_rest(service)


def test_workers_killed_at_random_moments_leave_nothing_behind(service, runtime):
    runtime.control(tokens=5, ms_per_token=10)
    dice = random.Random(KILLS)
    with crowd(10, lambda _: asked(service, MODEL)) as seen:
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.0, 0.5))
            service.kill_worker(dice.choice(sorted(living(service))))
            wait_until(lambda: len(living(service)) > 1)
    assert {answer.status for answer in seen} <= {200, LOST}
    assert sum(answer.status == LOST for answer in seen) <= 10 * KILLS
    assert runtime.model(MODEL)["peak"] == 3
    wait_until_at_rest(service)
    assert asked(service, MODEL).status == 200
    wait_until(lambda: worker_files(service) == set(service.worker_pids()), why="files deleted")
    assert service.log_lines("internal_error") == []


def test_a_worker_killed_while_it_loads_is_replaced_by_another(service, runtime):
    service.post(f"/v1/models/{MODEL}/unload")
    runtime.control(load_seconds=1.0)
    calls = burst(service, MODEL, 12)
    wait_until(lambda: held(service, "tickets") == 12)
    wait_until(lambda: runtime.model(MODEL)["state"] == "loading")
    (ticket,) = (x["ticket"] for x in registry(service)["registry"] if x["phase"] == "loading")
    service.kill_worker(int(ticket.partition("-")[0]))
    statuses = Counter(answer.status for answer in answers(calls))
    assert set(statuses) == {200, LOST}
    assert runtime.model(MODEL)["cancelled_loads"] == 1
    assert runtime.model(MODEL)["loads"] == 1
    wait_until_at_rest(service)
