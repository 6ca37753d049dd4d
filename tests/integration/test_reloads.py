"""Reloads: SIGHUP loses no request, repeats no preload, and cannot end the service."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from tests.integration.helpers import (
    answers,
    asked,
    burst,
    crowd,
    leaks,
    living,
    registry,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support import process
from tests.support.process import wait_until
from tests.support.service import catalog

MODEL = "mistral:7b"
RELOADS = int(os.environ.get("MES_TEST_RELOADS", 3))
ENTRY = {"max_concurrent": 2, "max_queue": 60, "timeout": 600}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {**ENTRY, "preload": True}}, GRACEFUL_TIMEOUT=1)


@pytest.fixture(autouse=True)
def _four_workers(service):
    wait_until(lambda: len(living(service)) == 4 and len(service.worker_pids()) == 4)


def reload(service):
    os.kill(service.process.pid, signal.SIGHUP)


def replaced(service, before):
    """Return whether four workers serve, none of which is one of `before`."""
    return len(living(service)) == 4 and not set(before) & set(service.worker_pids())


def test_running_and_waiting_requests_are_served_by_the_old_workers(service, runtime):
    """GRACEFUL_TIMEOUT limits stops, not reloads."""
    runtime.control(first_token_ms=5000)
    before = service.worker_pids()
    calls = burst(service, MODEL, 8)
    wait_until_held(service, permits=2, tickets=6)
    reload(service)
    wait_until(lambda: living(service) - set(before))
    runtime.control(first_token_ms=10)
    assert {answer.status for answer in answers(calls)} == {200}
    wait_until(lambda: replaced(service, before), why="the old workers end")
    assert runtime.model(MODEL)["peak"] == 2
    assert asked(service, MODEL).status == 200
    wait_until_at_rest(service)


def test_reloads_under_load_lose_no_request(service, runtime):
    runtime.control(tokens=3, ms_per_token=10)
    with crowd(6, lambda _: asked(service, MODEL)) as seen:
        for _ in range(RELOADS):
            before, so_far = service.worker_pids(), len(seen)
            reload(service)
            wait_until(lambda old=before: replaced(service, old), seconds=60)
            wait_until(lambda n=so_far: len(seen) > n + 12)
    assert {answer.status for answer in seen} == {200}
    assert runtime.model(MODEL)["peak"] == 2
    assert runtime.model(MODEL)["loads"] == 0, "a preloaded model is not loaded again"
    wait_until_at_rest(service)
    assert service.log_lines("workers_died") == []


def test_a_broken_catalog_refuses_the_reload_and_changes_nothing(service, runtime):
    runtime.control(first_token_ms=500)
    workers = service.worker_pids()
    service.models_path.write_text('{"models": {"mistral:7b": {"max_concurent": 1}}}')
    calls = burst(service, MODEL, 4)
    reload(service)
    (line,) = wait_until(lambda: service.log_lines("reload_refused"))
    assert "max_concurent" in line["problem"]
    assert {answer.status for answer in answers(calls)} == {200}
    assert service.worker_pids() == workers
    catalog(service.models_path, **{MODEL: ENTRY})
    service.wait_until_ready()
    reload(service)
    wait_until(lambda: replaced(service, workers))
    assert asked(service, MODEL).status == 200


def wakeup_pipes(service):
    return list((service.state_dir / "workers").glob("*.wakeup"))


def owners(service):
    document = registry(service)
    return [x["worker"] for kind in ("permits", "tickets") for x in document[kind].values()]


def test_a_new_master_shares_the_limits_with_the_old_one(service, runtime):
    """SIGUSR2 starts a new master beside the old one, which SIGTERM ends."""
    old = service.worker_pids()
    os.kill(service.process.pid, signal.SIGUSR2)
    successor = wait_until(lambda: set(service.worker_pids()) - set(old), seconds=60)
    master = successor.pop()
    wait_until(lambda: len(process.children(master)) == 4, seconds=60)
    wait_until(lambda: len(wakeup_pipes(service)) == 8)
    runtime.control(first_token_ms=3000)
    calls = burst(service, MODEL, 20)
    wait_until_held(service, permits=2, tickets=18)
    assert {int(owner.partition("-")[0]) in old for owner in owners(service)} == {True, False}
    runtime.control(first_token_ms=10)
    assert {answer.status for answer in answers(calls)} == {200}
    assert runtime.model(MODEL)["peak"] == 2
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.wait(20) == 0
    assert asked(service, MODEL).status == 200
    assert leaks(service) == {}
    os.kill(master, signal.SIGTERM)
    with suppress(ProcessLookupError):
        wait_until(lambda: not process.group(service.process.pid), seconds=20)
