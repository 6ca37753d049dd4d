"""Growth of the resources that the idle service uses, before a soak test and after it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.soak_test.environment import CONCURRENT, FIRST_TOKEN_MS, MODELS, PLACES, WORKERS
from bench.soak_test.load import LoadGenerator
from bench.soak_test.request_mix import SCHEMA
from tests.integration.helpers import (
    answers,
    burst,
    held,
    living,
    wait_until_at_rest,
)
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

_REQUESTS_PER_MODEL = 50
_FIRST_TOKEN_MS = 8000
_LIMIT = 1.05
# A worker's memory grows by about a tenth in its first minutes, until its allocator has settled.
_LIMIT_OF_OLDER_MEMORY = 1.2
_LIMIT_OF_STATE_BYTES = 1 << 20


@dataclass(frozen=True)
class ProcessUsage:
    """The file descriptors, threads and resident memory of some processes."""

    descriptors: int
    threads: int
    memory_kb: int


@dataclass(frozen=True)
class ServiceUsage:
    """The resources that the idle service uses."""

    master: ProcessUsage
    workers: ProcessUsage
    state_files: int
    state_bytes: int


@dataclass(frozen=True)
class Growth:
    """The resource usage before and after the soak test, each with new workers of the same age.

    `older` is the usage of the workers of `after` at a later time. Both are None if the service did
    not become idle.
    """

    before: ServiceUsage
    after: ServiceUsage | None
    older: ServiceUsage | None

    def breaches(self) -> list[str]:
        """Return a description of each resource that has grown by more than its limit."""
        if self.after is None or self.older is None:
            return ["not measured, because the service did not become idle"]
        return [
            *_grown(self.before, self.after, memory=_LIMIT),
            *_grown(self.after, self.older, memory=_LIMIT_OF_OLDER_MEMORY),
        ]


def renew(service: Service, runtime: FakeOllama) -> None:
    """Replace all workers, and let the new ones start all their threads.

    The soak test kills workers, so without this some would be much older than others.
    """
    before = set(service.worker_pids())
    os.kill(service.process.pid, signal.SIGHUP)
    wait_until(lambda: _replaced(service, before), seconds=120, why="all workers are new")
    service.wait_until_ready()
    _fill(service, runtime)


def usage_after(seconds: float, load: LoadGenerator, clients: int) -> ServiceUsage:
    """Run the load for some seconds. Return the resource usage of the idle service."""
    service = load.service
    with load.running(clients):
        time.sleep(seconds)
    wait_until_at_rest(service, seconds=60)
    wait_until(lambda: _has_no_old_files(service), seconds=60, why="dead workers are cleaned up")
    files = [path for path in service.state_dir.rglob("*") if not path.is_dir()]
    return ServiceUsage(
        master=_process_usage([service.process.pid]),
        workers=_process_usage(service.worker_pids()),
        state_files=len(files),
        state_bytes=sum(path.stat().st_size for path in files),
    )


def _grown(before: ServiceUsage, after: ServiceUsage, *, memory: float) -> list[str]:
    # A worker keeps as many idle connections to the runtime as it once had permits.
    connections = WORKERS * PLACES * CONCURRENT
    found = _larger("master", before.master, after.master, memory, 0)
    found += _larger("workers", before.workers, after.workers, memory, connections)
    if after.state_files > before.state_files:
        found.append(f"state: {before.state_files} -> {after.state_files} files")
    if after.state_bytes > _LIMIT_OF_STATE_BYTES:
        found.append(f"state: {after.state_bytes} bytes")
    return found


def _larger(
    process: str, before: ProcessUsage, after: ProcessUsage, memory: float, connections: int
) -> list[str]:
    allowed = ProcessUsage(
        descriptors=int(before.descriptors * _LIMIT) + connections,
        threads=int(before.threads * _LIMIT),
        memory_kb=int(before.memory_kb * memory),
    )
    return [
        f"{process}: {name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in ProcessUsage.__annotations__
        if getattr(after, name) > getattr(allowed, name)
    ]


def _fill(service: Service, runtime: FakeOllama) -> None:
    """Send many requests at once, because a worker keeps the threads that it once needed."""
    runtime.control(first_token_ms=_FIRST_TOKEN_MS)
    body = {"json_schema": SCHEMA, "timeout": 60}
    calls = [
        call for model in MODELS for call in burst(service, model, _REQUESTS_PER_MODEL, **body)
    ]
    wait_until(lambda: held(service, "permits") + held(service, "tickets") == len(calls))
    runtime.control(first_token_ms=FIRST_TOKEN_MS)
    answers(calls)


def _replaced(service: Service, before: set[int]) -> bool:
    now = set(service.worker_pids())
    return len(now) == len(living(service)) == WORKERS and not before & now


def _has_no_old_files(service: Service) -> bool:
    files = (service.state_dir / "workers").iterdir()
    return {int(file.name.partition("-")[0]) for file in files} == set(service.worker_pids())


def _process_usage(pids: list[int]) -> ProcessUsage:
    statuses = [_status(pid) for pid in pids]
    return ProcessUsage(
        descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        threads=sum(status["Threads"] for status in statuses),
        memory_kb=sum(status["VmRSS"] for status in statuses),
    )


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(text.split()[0]) for name, text in pairs if name in ("Threads", "VmRSS")}
