"""Checks of the running services: the runtime and MES itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from packaging.version import InvalidVersion, Version

from mes import __version__
from mes.cli.checks import Finding, Findings, fail, limits, ok, or_else, warn
from mes.cli.client import CommandError, MesClient, ServiceUnreachable, Target
from mes.config.catalog import Catalog
from mes.config.settings import Settings
from mes.domain import Runtime
from mes.errors import MesError
from mes.event_loop import EventLoop
from mes.ollama.client import OllamaRuntime
from mes.streams import StreamPump

# Older versions can be made to show other users' requests, or to write outside of their folder.
_OLDEST_OLLAMA = Version("0.20.3")


def runtime_findings(
    settings: Settings, catalog: Catalog, environment: Mapping[str, str]
) -> Findings:
    """Yield the runtime's version, its models, and whether its limits match those of MES."""
    with closing(EventLoop()) as event_loop, closing(StreamPump()) as stream_pump:
        runtime = OllamaRuntime(
            host=settings.ollama_host, event_loop=event_loop, stream_pump=stream_pump, pool_size=1
        )
        try:
            version = runtime.version()
            yield _check_runtime_version(version, settings.ollama_host)
            yield from _check_pulled_models(runtime, catalog)
            yield from _check_untracked_models(runtime, catalog)
        except MesError as exc:
            yield _runtime_unreachable(exc.detail, "OLLAMA_HOST" in environment)
            return
    name = version.partition(" ")[0]
    yield from limits.ollama_limit_findings(settings, catalog, name, environment)


def _runtime_unreachable(detail: str, is_configured: bool) -> Finding:
    if is_configured:
        return fail("runtime", f"{detail}; start it, or correct OLLAMA_HOST")
    return warn("runtime", f"{detail}; set OLLAMA_HOST, unless `make run` starts a runtime")


def _check_runtime_version(version: str, url: str) -> Finding:
    name, _, number = version.partition(" ")
    try:
        is_old = name == "ollama" and Version(number) < _OLDEST_OLLAMA
    except InvalidVersion:
        is_old = False  # a custom build
    if is_old:
        problem = f"{version} has known security holes"
        return warn("runtime", f"{problem}; upgrade to {_OLDEST_OLLAMA} or newer")
    return ok("runtime", f"{version} at {url}")


def _check_pulled_models(runtime: Runtime, catalog: Catalog) -> Findings:
    pulled = {model.name for model in runtime.pulled()}
    problems = [
        (fail if spec.preload else warn)("models", f"{spec.id} is not pulled; mes pull {spec.id}")
        for spec in catalog.enabled
        if spec.tag not in pulled
    ]
    yield from or_else(problems, ok("models", "all enabled models are pulled"))


def _check_untracked_models(runtime: Runtime, catalog: Catalog) -> Findings:
    for model in runtime.loaded():
        if catalog.by_tag(model.name) is None:
            problem = f"{model.name} is in the runtime's memory and not in the catalog"
            yield warn("models", f"{problem}; let only MES use the runtime")


def service_findings(target: Target) -> Findings:
    """Yield whether MES runs in this version, is ready, and accepts the key.

    A service that is not running is a warning, since it may not be started yet.
    """
    try:
        client = MesClient(target)
        _, health = client.get_any_status("/health")
    except CommandError as error:
        level = warn if isinstance(error, ServiceUnreachable) else fail
        yield level("service", error.message)
        return
    if health.get("status") != "healthy":
        problem = f"the server at {target.url} is not MES"
        yield fail("service", f"{problem}; stop it, or set PORT or MES_URL")
        return
    yield _check_service_version(client, str(health.get("version")))
    yield from _check_readiness(client)
    key = _check_key(client)
    yield key
    if key.level == "ok":
        yield from _check_limits(client)


def _check_service_version(client: MesClient, running: str) -> Finding:
    if running == __version__:
        return ok("service", f"MES {running} answers at {client.url}")
    problem = f"MES {running} answers at {client.url}, but {__version__} is installed"
    return warn("service", f"{problem}; restart it")


def _check_readiness(client: MesClient) -> Findings:
    status, checks = client.get_any_status("/ready")
    is_ready = status == 200
    if is_ready:
        yield ok("service", "it is ready")
    for name, state in checks.items():
        if name != "status" and state != "ok":
            level, problem = (warn, "its limit") if is_ready else (fail, "it is not ready")
            yield level("service", f"{problem}: {name}: {state}")


def _check_key(client: MesClient) -> Finding:
    try:
        client.get("/v1/models", required_field="models")
    except CommandError as error:
        return fail("service", error.message)
    return ok("service", "it accepts the key")


def _check_limits(client: MesClient) -> Findings:
    """Yield the limits of MES above those that the service has found the runtime to have."""
    for model in client.get("/v1/status", required_field="models")["models"]:
        limit, effective = model.get("max_concurrent"), model.get("effective_max_concurrent")
        if limit and effective and effective < limit:
            problem = f"the runtime serves {effective} at a time of {model.get('id')}"
            yield warn("service", f"{problem}; lower its max_concurrent from {limit} to that")
