"""A pull of the fake runtime: progress in equal steps, then the model is on its disk."""

from __future__ import annotations

from typing import Any

from tests.support.fake_ollama.connection import Connection
from tests.support.fake_ollama.faults import Fault, interrupt_stream
from tests.support.fake_ollama.machine import Machine
from tests.support.fake_ollama.model import Model

STEPS = 4


def pull(name: str, machine: Machine, fault: Fault, connection: Connection) -> None:
    """Stream the progress as Ollama does, and add the model after the last step."""
    total = machine.behaviour.pull_bytes
    connection.line({"status": "pulling manifest"})
    for step in range(STEPS + 1):
        if fault and step >= fault.get("after", 1):
            interrupt_stream(fault, connection)
        connection.line(_progress(Model(name).digest, total, total * step // STEPS))
        connection.wait(machine.behaviour.pull_seconds / (STEPS + 1))
    machine.add(name)
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        connection.line({"status": status})
    connection.end()


def _progress(digest: str, total: int, completed: int) -> dict[str, Any]:
    """Return the line of a layer; Ollama omits `completed` while it is 0."""
    status = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
    return {**status, "completed": completed} if completed else status
