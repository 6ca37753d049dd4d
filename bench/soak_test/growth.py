"""Growth: what the service takes up once it is at rest, before a soak and after it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.soaking.clients import Crowd
from bench.soaking.stage import CONCURRENT, FIRST_TOKEN_MS, MODELS, PLACES, WORKERS
from bench.soaking.wishes import SCHEMA
from tests.integration.helpers import (
    answers,
    burst,
    held,
    living,
    wait_until_at_rest,
)
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

_OF_EACH = 50
_UNTIL_ALL_ARE_IN_MS = 8000
_MOST = 1.05
# A worker's memory grows by about a tenth in its first minutes, until its allocator has settled.
_MOST_OF_OLDER_MEMORY = 1.2
_MOST_STATE_BYTES = 1 << 20


@dataclass(frozen=True)
class Size:
    """What some processes have open, run and hold in memory."""

    descriptors: int
    threads: int
    memory_kb: int


@dataclass(frozen=True)
class Sizes:
    """The service at rest."""

    master: Size
    workers: Size
    state_files: int
    state_bytes: int


@dataclass(frozen=True)
class Growth:
    """New workers before and after the soak, at the same age; and the latter when they are older.

    Without the last two the service did not come to rest.
    """

    before: Sizes
    after: Sizes | None
    older: Sizes | None

    def breaches(self) -> list[str]:
        """What has grown by more than it may."""
        if self.after is None or self.older is None:
            return ["not measured, for the service did not come to rest"]
        return [
            *_grown(self.before, self.after, memory=_MOST),
            *_grown(self.after, self.older, memory=_MOST_OF_OLDER_MEMORY),
        ]


def renew(service: Service, runtime: FakeOllama) -> None:
    """Give the service new workers, which have their threads; the soak lets none grow old."""
    before = set(service.worker_pids())
    os.kill(service.process.pid, signal.SIGHUP)
    wait_until(lambda: _replaced(service, before), seconds=120, why="all workers are new")
    service.wait_until_ready()
    _fill(service, runtime)


def sizes_after(seconds: float, crowd: Crowd, clients: int) -> Sizes:
    """What the service takes up at rest, after some more load."""
    service = crowd.service
    with crowd.at_work(clients):
        time.sleep(seconds)
    wait_until_at_rest(service, seconds=60)
    wait_until(lambda: _swept(service), seconds=60, why="the dead have left nothing behind")
    files = [path for path in service.state_dir.rglob("*") if not path.is_dir()]
    return Sizes(
        master=_size([service.process.pid]),
        workers=_size(service.worker_pids()),
        state_files=len(files),
        state_bytes=sum(path.stat().st_size for path in files),
    )


def _grown(before: Sizes, after: Sizes, *, memory: float) -> list[str]:
    # Idle connections to the runtime, of which a worker keeps as many as it had permits at once.
    connections = WORKERS * PLACES * CONCURRENT
    found = _larger("master", before.master, after.master, memory, 0)
    found += _larger("workers", before.workers, after.workers, memory, connections)
    if after.state_files > before.state_files:
        found.append(f"state: {before.state_files} -> {after.state_files} files")
    if after.state_bytes > _MOST_STATE_BYTES:
        found.append(f"state: {after.state_bytes} bytes")
    return found


def _larger(who: str, before: Size, after: Size, memory: float, connections: int) -> list[str]:
    allowed = Size(
        descriptors=int(before.descriptors * _MOST) + connections,
        threads=int(before.threads * _MOST),
        memory_kb=int(before.memory_kb * memory),
    )
    return [
        f"{who}: {name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in Size.__annotations__
        if getattr(after, name) > getattr(allowed, name)
    ]


def _fill(service: Service, runtime: FakeOllama) -> None:
    """Many requests at once: a worker keeps the threads that it once needed, and their memory."""
    runtime.control(first_token_ms=_UNTIL_ALL_ARE_IN_MS)
    body = {"json_schema": SCHEMA, "timeout": 60}
    calls = [call for model in MODELS for call in burst(service, model, _OF_EACH, **body)]
    wait_until(lambda: held(service, "permits") + held(service, "tickets") == len(calls))
    runtime.control(first_token_ms=FIRST_TOKEN_MS)
    answers(calls)


def _replaced(service: Service, before: set[int]) -> bool:
    now = set(service.worker_pids())
    return len(now) == len(living(service)) == WORKERS and not before & now


def _swept(service: Service) -> bool:
    files = (service.state_dir / "workers").iterdir()
    return {int(file.name.partition("-")[0]) for file in files} == set(service.worker_pids())


def _size(pids: list[int]) -> Size:
    statuses = [_status(pid) for pid in pids]
    return Size(
        descriptors=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        threads=sum(status["Threads"] for status in statuses),
        memory_kb=sum(status["VmRSS"] for status in statuses),
    )


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(text.split()[0]) for name, text in pairs if name in ("Threads", "VmRSS")}
