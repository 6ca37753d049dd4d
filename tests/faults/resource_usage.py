"""The resources that a service uses: descriptors, threads, memory, files, lines in its log."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

# Together they last longer than a worker takes to give freed memory back.
_SAMPLES = 14
_SAMPLE_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True)
class ResourceUsage:
    """The sum over all workers."""

    descriptors: int
    threads: int
    memory_kb: int
    files: int

    @classmethod
    def of(cls, service: Service) -> ResourceUsage:
        workers = [Path(f"/proc/{pid}") for pid in service.worker_pids()]
        return cls(
            descriptors=sum(len(os.listdir(each / "fd")) for each in workers),
            threads=sum(len(os.listdir(each / "task")) for each in workers),
            memory_kb=sum(_memory_kb(each) for each in workers),
            files=sum(1 for _ in service.state_dir.rglob("*")),
        )

    @classmethod
    def at_rest(cls, service: Service) -> ResourceUsage:
        """Return the minimum of each value over some seconds, in which connections close."""
        samples = []
        for _ in range(_SAMPLES):
            samples.append(astuple(cls.of(service)))
            time.sleep(_SAMPLE_INTERVAL_SECONDS)
        return cls(*map(min, zip(*samples, strict=True)))


def _memory_kb(worker: Path) -> int:
    """Return the resident memory of a worker."""
    lines = (worker / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def log_line_counts(service: Service) -> Counter[str]:
    """Return the number of log lines of each request, by its id."""
    return Counter(line["request_id"] for line in service.log_lines("request"))


def wait_until_logged(service: Service, ids: list[str]) -> None:
    """Wait until each of these requests has a log line, and check that none has two."""
    wait_until(
        lambda: not set(ids) - log_line_counts(service).keys(), why="each request has a line"
    )
    assert [log_line_counts(service)[each] for each in ids] == [1] * len(ids)


def wait_until_idle(runtime: FakeOllama) -> None:
    """Wait until the runtime generates nothing."""

    def idle() -> bool:
        return all(model["current"] == 0 for model in runtime.stats()["models"].values())

    wait_until(idle, why="the runtime is idle")
