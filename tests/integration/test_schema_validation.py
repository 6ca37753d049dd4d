"""Validation under gunicorn: the processes of the second validator leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Call
from tests.support import process
from tests.support.process import wait_until

PATH = "/v1/schemas/validate"
# Each instance takes the second validator 1 s of CPU time, and all of them 10 s.
HANGING = {"json_schema": {"pattern": "^(a+)+$"}, "instances": ["a" * 60 + "!"] * 1_000}


@pytest.fixture(scope="module")
def service(start):
    return start(WEB_CONCURRENCY=1)


def validators(service: Any) -> list[int]:
    """Return the processes of the second validator."""
    return [child for worker in service.worker_pids() for child in process.children(worker)]


def test_a_client_that_hangs_up_ends_its_process(service):
    with Call(service, PATH, HANGING):
        wait_until(lambda: validators(service))
    wait_until(lambda: not validators(service), seconds=8)
    wait_until(lambda: [each for each in service.log_lines() if each.get("status") == 499])


def test_the_kernel_limits_the_memory_and_the_time_of_a_process(service):
    with Call(service, PATH, HANGING):
        (pid,) = wait_until(lambda: validators(service))

        def limits() -> str:
            return Path(f"/proc/{pid}/limits").read_text()

        wait_until(lambda: re.search(r"Max address space +1073741824 +1073741824 ", limits()))
        wait_until(lambda: re.search(r"Max cpu time +16 +16 ", limits()))
        wait_until(lambda: re.search(r"Max core file size +0 +0 ", limits()))


def test_others_are_served_while_instances_hang(service):
    with Call(service, PATH, HANGING):
        wait_until(lambda: validators(service))
        assert Call(service, "/health").answer().status == 200
        answer = Call(service, PATH, {"json_schema": {}, "instances": [1]}).answer()
        assert answer.json()["totals"]["valid"] == 1
        assert validators(service)


def test_a_killed_process_is_an_answer_without_its_verdicts(service):
    call = Call(service, PATH, HANGING)
    (pid,) = wait_until(lambda: validators(service))
    os.kill(pid, signal.SIGKILL)
    answer = call.answer()
    assert answer.status == 200
    assert answer.json()["totals"] == {
        "instances": 1_000,
        "valid": 0,
        "invalid": 0,
        "disagreements": 0,
        "undecided": 1_000,
    }
    assert service.log_lines("second_validator_failed")[-1]["exit_code"] == -9


def test_a_killed_worker_takes_its_processes_with_it(service):
    with Call(service, PATH, HANGING):
        (pid,) = wait_until(lambda: validators(service))
        (worker,) = service.worker_pids()
        service.kill_worker(worker)
        wait_until(lambda: not process.group(service.process.pid).count(pid), seconds=60)
