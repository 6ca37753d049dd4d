"""Fault injection: reloads, killed and stopped workers, unread answers, and a failing runtime.

See model_faults.py for the faults of models.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.soak_test.environment import LOCK_SECONDS, MODELS
from bench.soak_test.load import RequestOutcome
from bench.soak_test.model_faults import ModelFaults
from bench.soak_test.runtime_counters import RuntimeCounters
from bench.soak_test.unread_answers import ask_without_reading
from tests.support.lock_holder import stopped_worker
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

# The number of each in 30 minutes, and its minimum in a shorter soak test.
_PER_HALF_HOUR = {
    "reload": 20,
    "kill": 50,
    "restart": 10,
    "fault": 300,
    "unread": 30,
    "stop": 20,
    "delete": 12,
    "update": 12,
    "stick": 12,
}
_MINIMUM = {"reload": 3, "kill": 6, "restart": 2, "fault": 15, "unread": 3, "stop": 2}
_MINIMUM |= {"delete": 2, "update": 2, "stick": 2}
# A fault of a model lasts until it is undone, after a time of this range in seconds.
_UNDONE_LATER = ("delete", "update", "stick")
_UNDONE_AFTER = (3.0, 20.0)

# Without faults at the end, so that later findings are faults of the service itself.
_CALM_SECONDS = 5.0

_LISTED = ("ps", "tags", "version")
_FAULTS: list[dict[str, Any]] = [
    *({"stage": "generate", "kind": kind} for kind in ("error", "reset", "nonsense", "hang")),
    *(
        {"stage": "generate", "kind": kind, "after": 2}
        for kind in ("cut", "error_line", "silence", "tear")
    ),
    *({"stage": "load", "kind": kind} for kind in ("error", "reset", "hang")),
    *({"stage": "unload", "kind": kind} for kind in ("error", "reset")),
    *({"stage": stage, "kind": kind} for stage in _LISTED for kind in ("error", "nonsense")),
    *({"stage": stage, "kind": kind} for stage in _LISTED for kind in ("reset", "hang")),
    {"drop": True},
]


@dataclass(frozen=True)
class WorkerKill:
    """A killed worker, with the client ports of its connections."""

    at: float
    ports: frozenset[int]

    def may_have_lost(self, outcome: RequestOutcome) -> bool:
        """Return whether the request may have ended with this worker.

        A request whose connection was never established has port 0.
        """
        # A hang-up is noticed within milliseconds, or on a busy machine within seconds.
        was_open = outcome.sent_at <= self.at <= outcome.ended_at + 5
        return was_open and (outcome.port in self.ports or not outcome.port)


@dataclass
class FaultInjector:
    """Injects faults by a plan, and counts them."""

    service: Service
    runtime: FakeOllama
    rng: random.Random
    runtime_counters: RuntimeCounters = field(default_factory=RuntimeCounters)
    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    kills: list[WorkerKill] = field(default_factory=list)
    models: ModelFaults = field(init=False)

    def __post_init__(self) -> None:
        self.models = ModelFaults(self.runtime, self.rng)

    def run(self, minutes: float) -> None:
        """Inject all faults of a plan, each at its time."""
        began = time.monotonic()
        for at, kind in plan(minutes, self.rng):
            time.sleep(max(0.0, began + at - time.monotonic()))
            getattr(self, kind)()
            self.done.update({kind} & _PER_HALF_HOUR.keys())
        self.runtime.control(faults=[])
        self.undo()
        time.sleep(max(_CALM_SECONDS, began + minutes * 60 - time.monotonic()))

    def may_have_lost(self, outcome: RequestOutcome) -> bool:
        """Return whether the request may have ended with a killed worker."""
        return any(kill.may_have_lost(outcome) for kill in self.kills)

    def reload(self) -> None:
        os.kill(self.service.process.pid, signal.SIGHUP)

    def kill(self) -> None:
        victim = wait_until(self._stopped_worker)
        assert victim is not None
        ports = frozenset(_ports(victim, self.service.port))
        self.kills.append(WorkerKill(time.monotonic(), ports))
        os.kill(victim, signal.SIGKILL)

    def _stopped_worker(self) -> int | None:
        """Stop a random worker, so that its connections stay the same until it is killed."""
        workers = self.service.worker_pids()
        return next(filter(_stop, self.rng.sample(workers, len(workers))), None)

    def stop(self) -> None:
        """Stop a worker that holds the lock on the shared state, and let it continue later."""
        with stopped_worker(self.service):
            time.sleep(self.rng.uniform(0.5, 3.0) * LOCK_SECONDS)

    def restart(self) -> None:
        """Kill the runtime and start it again, with no model loaded."""
        # Its counters are lost with it, so it must not count any more when they are read.
        # It has counters of the models on its disk alone.
        self.runtime.control(mode="refuse", pulled=MODELS)
        self.runtime_counters.add(self.runtime.stats())
        self.runtime.kill()
        time.sleep(self.rng.uniform(0.0, 2.0))
        self.runtime.start()

    def unread(self) -> None:
        ask_without_reading(self.service)

    def delete(self) -> None:
        self.models.delete()

    def update(self) -> None:
        self.models.update()

    def stick(self) -> None:
        self.models.stick()

    def undo(self) -> None:
        self.models.undo()

    def fault(self) -> None:
        planned = self.rng.choice(_FAULTS)
        if "drop" in planned:
            self.runtime.control(drop=self.runtime.stats()["loaded"][:1])
            self.faults["model lost"] += 1
            return
        self.runtime.control(faults=[{**planned, "times": self.rng.randint(1, 3)}])
        self.faults[f"{planned['stage']}: {planned['kind']}"] += 1


def plan(minutes: float, rng: random.Random) -> list[tuple[float, str]]:
    """Return the seconds and the kind of each fault, in order, at random times."""
    seconds = minutes * 60 - _CALM_SECONDS
    faults = [
        (rng.uniform(0, seconds), kind)
        for kind, number in _PER_HALF_HOUR.items()
        for _ in range(max(_MINIMUM[kind], round(number * minutes / 30)))
    ]
    undone = [
        (min(seconds, at + rng.uniform(*_UNDONE_AFTER)), "undo")
        for at, kind in faults
        if kind in _UNDONE_LATER
    ]
    return sorted(faults + undone)


def _stop(pid: int) -> bool:
    """Stop the process. Return False if it has just ended by itself."""
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) in "TZ")
        return _state(pid) == "T"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _ports(pid: int, port: int) -> Iterator[int]:
    """Yield the remote ports of the connections that a process has accepted on a port."""
    open_files = set(_files(pid))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if int(local.partition(":")[2], 16) == port and f"socket:[{rest[6]}]" in open_files:
            yield int(remote.partition(":")[2], 16)


def _files(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # A thread that stopped last may have closed some files meanwhile.
        with suppress(FileNotFoundError):
            yield os.readlink(file)
