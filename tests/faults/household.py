"""What a service holds: processes, descriptors, threads, memory, files, lines in its log."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

# Longer than a worker takes to give freed memory back.
_LOOKS = 14
_LOOKS_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Household:
    """Of all workers together."""

    descriptors: int
    threads: int
    memory_kb: int
    files: int

    @classmethod
    def of(cls, service: Service) -> Household:
        workers = [Path(f"/proc/{pid}") for pid in service.worker_pids()]
        return cls(
            descriptors=sum(len(os.listdir(each / "fd")) for each in workers),
            threads=sum(len(os.listdir(each / "task")) for each in workers),
            memory_kb=sum(_memory_kb(each) for each in workers),
            files=sum(1 for _ in service.state_dir.rglob("*")),
        )

    @classmethod
    def at_rest(cls, service: Service) -> Household:
        """The least that is held over some seconds, in which connections come to their end."""
        looks = []
        for _ in range(_LOOKS):
            looks.append(astuple(cls.of(service)))
            time.sleep(_LOOKS_EVERY_SECONDS)
        return cls(*map(min, zip(*looks, strict=True)))


def _memory_kb(worker: Path) -> int:
    """Resident memory."""
    lines = (worker / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def lines_of(service: Service) -> Counter[str]:
    """How many lines each request has in the log, by its id."""
    return Counter(line["request_id"] for line in service.log_lines("request"))


def wait_until_told(service: Service, ids: list[str]) -> None:
    """Each of these requests has its line, and none has two."""
    wait_until(lambda: not set(ids) - lines_of(service).keys(), why="each request has a line")
    assert [lines_of(service)[each] for each in ids] == [1] * len(ids)


def wait_until_idle(runtime: FakeOllama) -> None:
    """The runtime generates nothing that nobody waits for."""

    def idle() -> bool:
        return all(model["current"] == 0 for model in runtime.stats()["models"].values())

    wait_until(idle, why="the runtime is idle")
