"""Trouble: what is done to the service and to the runtime while the clients are at work."""

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

from bench.soaking.clients import Seen
from bench.soaking.records import Records
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

# In 30 minutes; and of each at least so many, however short the soak is.
_USUAL = {"reload": 20, "kill": 50, "restart": 10, "fault": 300}
_LEAST = {"reload": 3, "kill": 6, "restart": 2, "fault": 15}

# At the end, so that what is seen afterwards is the service's own.
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
class Kill:
    """A worker killed, and the clients' ports of the connections it held."""

    at: float
    ports: frozenset[int]

    def took_along(self, seen: Seen) -> bool:
        """Did the request end with this worker? A connection that never stood has port 0."""
        # That a caller has hung up is noticed within milliseconds, on a busy machine seconds.
        open_exchanges = seen.sent_at <= self.at <= seen.ended_at + 5
        return open_exchanges and (seen.port in self.ports or not seen.port)


@dataclass
class Trouble:
    """Carries out a plan, and remembers what it did."""

    service: Service
    runtime: FakeOllama
    dice: random.Random
    records: Records = field(default_factory=Records)
    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    kills: list[Kill] = field(default_factory=list)

    def make(self, minutes: float) -> None:
        """All of the plan, each at its time."""
        began = time.monotonic()
        for at, what in plan(minutes, self.dice):
            time.sleep(max(0.0, began + at - time.monotonic()))
            getattr(self, what)()
            self.done[what] += 1
        self.runtime.control(faults=[])
        time.sleep(max(_CALM_SECONDS, began + minutes * 60 - time.monotonic()))

    def took_along(self, seen: Seen) -> bool:
        """Did the request end with a killed worker?"""
        return any(kill.took_along(seen) for kill in self.kills)

    def reload(self) -> None:
        os.kill(self.service.process.pid, signal.SIGHUP)

    def kill(self) -> None:
        victim = wait_until(self._stopped)
        assert victim is not None
        ports = frozenset(_ports(victim, self.service.port))
        self.kills.append(Kill(time.monotonic(), ports))
        os.kill(victim, signal.SIGKILL)

    def _stopped(self) -> int | None:
        """Any worker, stopped so that what it holds stays the same until it is killed."""
        workers = self.service.worker_pids()
        return next(filter(_stop, self.dice.sample(workers, len(workers))), None)

    def restart(self) -> None:
        """The runtime dies and comes back, with nothing in memory."""
        # Its records die with it, so it must have nothing more to record when they are read.
        self.runtime.control(mode="refuse")
        self.records.add(self.runtime.stats())
        self.runtime.kill()
        time.sleep(self.dice.uniform(0.0, 2.0))
        self.runtime.start()

    def fault(self) -> None:
        planned = self.dice.choice(_FAULTS)
        if "drop" in planned:
            self.runtime.control(drop=self.runtime.stats()["loaded"][:1])
            self.faults["model lost"] += 1
            return
        self.runtime.control(faults=[{**planned, "times": self.dice.randint(1, 3)}])
        self.faults[f"{planned['stage']}: {planned['kind']}"] += 1


def plan(minutes: float, dice: random.Random) -> list[tuple[float, str]]:
    """When to do what, at random times."""
    seconds = minutes * 60 - _CALM_SECONDS
    return sorted(
        (dice.uniform(0, seconds), what)
        for what, usual in _USUAL.items()
        for _ in range(max(_LEAST[what], round(usual * minutes / 30)))
    )


def _stop(pid: int) -> bool:
    """Make it stand still; False where it has just ended by itself."""
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) in "TZ")
        return _state(pid) == "T"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _ports(pid: int, port: int) -> Iterator[int]:
    """The other ends of the connections that a process has accepted on a port."""
    held = set(_files(pid))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if int(local.partition(":")[2], 16) == port and f"socket:[{rest[6]}]" in held:
            yield int(remote.partition(":")[2], 16)


def _files(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # The last of its threads to stand still may have closed some meanwhile.
        with suppress(FileNotFoundError):
            yield os.readlink(file)
