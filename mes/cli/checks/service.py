"""The service: up, ready, of this version, and open to the key."""

from __future__ import annotations

from mes import __version__
from mes.cli.checks.finding import Findings, fail, ok, warn
from mes.cli.client import Client, Problem, Unreachable
from mes.cli.target import Target


def findings(target: Target) -> Findings:
    """What the service says to those who ask it. One that does not run yet is no failure."""
    try:
        client = Client(target)
        _, health = client.look("/health")
    except Unreachable as problem:
        yield warn("service", problem.message)
        return
    except Problem as problem:
        yield fail("service", problem.message)
        return
    if health.get("status") != "healthy":
        yield fail("service", f"what answers at {target.url} is not MES; is its port taken?")
        return
    yield from _version(client, str(health.get("version")))
    yield from _ready(client)
    yield from _key(client)


def _version(client: Client, running: str) -> Findings:
    if running == __version__:
        yield ok("service", f"MES {running} answers at {client.url}")
    else:
        problem = f"MES {running} answers at {client.url}, and {__version__} is installed here"
        yield warn("service", f"{problem}; restart it")


def _ready(client: Client) -> Findings:
    status, checks = client.look("/ready")
    wrong = {name: word for name, word in checks.items() if name != "status" and word != "ok"}
    if status == 200:
        yield ok("service", "it is ready")
    for name, word in wrong.items():
        yield fail("service", f"it is not ready: {name}: {word}")


def _key(client: Client) -> Findings:
    try:
        client.get("/v1/models", having="models")
    except Problem as problem:
        yield fail("service", problem.message)
    else:
        yield ok("service", "it accepts the key")
