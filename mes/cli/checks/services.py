"""Checks of the running services: the runtime and MES itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from packaging.version import InvalidVersion, Version

from mes import __version__
from mes.cli.checks import Finding, Findings, fail, limits, ok, or_else, warn
from mes.cli.client import Client, CommandError, ServiceUnreachable, Target
from mes.config.catalog import Catalog
from mes.config.settings import Settings
from mes.domain import Runtime
from mes.errors import MesError
from mes.event_loop import EventLoop
from mes.ollama.client import OllamaRuntime
from mes.streams import StreamPump

# The runtime: there, recent, and with the models of the catalog.

# Older ones can be made to show other users' requests, or to write outside of their folder.
_OLDEST = Version("0.20.3")


def runtime_findings(settings: Settings, catalog: Catalog, given: Mapping[str, str]) -> Findings:
    """All that can be asked of the runtime, then whether its own settings agree with ours."""
    with closing(EventLoop()) as event_loop, closing(StreamPump()) as stream_pump:
        runtime = OllamaRuntime(
            host=settings.ollama_host, event_loop=event_loop, stream_pump=stream_pump, pool_size=1
        )
        try:
            version = runtime.version()
            yield from _age(version, settings.ollama_host)
            yield from _pulled(runtime, catalog)
            yield from _untracked_models(runtime, catalog)
        except MesError as exc:
            yield _runtime_unreachable(exc.detail, "OLLAMA_HOST" in given)
            return
    yield from limits.ollama_limit_findings(settings, catalog, version.partition(" ")[0], given)


def _runtime_unreachable(detail: str, is_named: bool) -> Finding:
    if is_named:
        return fail("runtime", f"{detail}; is it running, and is OLLAMA_HOST right?")
    return warn("runtime", f"{detail}; set OLLAMA_HOST, unless `make run` brings a runtime")


def _age(version: str, where: str) -> Findings:
    kind, _, number = version.partition(" ")
    try:
        is_old = kind == "ollama" and Version(number) < _OLDEST
    except InvalidVersion:
        is_old = False  # somebody's own build
    if is_old:
        yield warn("runtime", f"{version} has known holes; upgrade to {_OLDEST} or newer")
    else:
        yield ok("runtime", f"{version} at {where}")


def _pulled(runtime: Runtime, catalog: Catalog) -> Findings:
    there = {model.name for model in runtime.pulled()}
    missing = [spec for spec in catalog.enabled if spec.tag not in there]
    found = [
        (fail if spec.preload else warn)("models", f"{spec.id} is not pulled; mes pull {spec.id}")
        for spec in missing
    ]
    yield from or_else(found, ok("models", "all that are enabled are pulled"))


def _untracked_models(runtime: Runtime, catalog: Catalog) -> Findings:
    for model in runtime.loaded():
        if catalog.by_tag(model.name) is None:
            problem = f"{model.name} is in the runtime's memory and not in the catalog"
            yield warn("models", f"{problem}; let MES be the runtime's only user")


# The service: up, ready, of this version, and open to the key.


def service_findings(target: Target) -> Findings:
    """What the service says to those who ask it. One that does not run yet is no failure."""
    try:
        client = Client(target)
        _, health = client.look("/health")
    except ServiceUnreachable as problem:
        yield warn("service", problem.message)
        return
    except CommandError as problem:
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
    except CommandError as problem:
        yield fail("service", problem.message)
    else:
        yield ok("service", "it accepts the key")
