"""A pull as the fake runtime makes it: progress in equal steps, then the model is on its disk."""

from __future__ import annotations

from typing import Any

from tests.support.fake_ollama.faults import Fault, break_off
from tests.support.fake_ollama.machine import Machine
from tests.support.fake_ollama.model import Model
from tests.support.fake_ollama.wire import Connection

STEPS = 4


def pull(name: str, machine: Machine, fault: Fault, connection: Connection) -> None:
    """Tell the progress as Ollama does; the model is there once all has been told."""
    total = machine.behaviour.pull_bytes
    connection.line({"status": "pulling manifest"})
    for step in range(STEPS + 1):
        if fault and step >= fault.get("after", 1):
            break_off(fault, connection)
        connection.line(_progress(Model(name).digest, total, total * step // STEPS))
        connection.wait(machine.behaviour.pull_seconds / (STEPS + 1))
    machine.add(name)
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        connection.line({"status": status})
    connection.end()


def _progress(digest: str, total: int, completed: int) -> dict[str, Any]:
    """One line of a layer; Ollama leaves `completed` out while it is 0."""
    status = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
    return {**status, "completed": completed} if completed else status
