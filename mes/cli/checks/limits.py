"""The limits: settings and catalog entries that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mes.cli.checks import Finding, Findings, fail, ok, or_else, warn
from mes.config.catalog import Catalog
from mes.config.settings import Settings
from mes.config.settings_schema import is_loopback
from mes.domain import ModelSpec

Models = tuple[ModelSpec, ...]

_SUBJECT = "limits"


def limit_findings(settings: Settings, catalog: Catalog) -> Findings:
    """Every limit that another one keeps from being reached."""
    models = catalog.enabled
    checks = (_timeouts, _patience, _threads, _pinned, _preload, _budget, _machine)
    found = [each for check in checks for each in check(settings, models)]
    yield from or_else(found, ok(_SUBJECT, "none contradicts another"))


def _timeouts(settings: Settings, models: Models) -> Iterable[Finding]:
    most = settings.max_timeout_seconds
    for spec in models:
        if spec.timeout_seconds > most:
            problem = f"the timeout of {spec.id} is {spec.timeout_seconds:g} s"
            yield fail(
                _SUBJECT, f"{problem}, MAX_TIMEOUT is {most:g}; lower it, or raise the other"
            )


def _patience(settings: Settings, models: Models) -> Iterable[Finding]:
    patience = settings.swap_patience_seconds
    name = "SWAP_PATIENCE" if patience is not None else "SWAP_PATIENCE_MIN"
    least = settings.swap_patience_min_seconds if patience is None else patience
    if least > settings.queue_timeout_seconds:
        problem = f"{name} is {least:g} s, QUEUE_TIMEOUT {settings.queue_timeout_seconds:g}"
        yield fail(_SUBJECT, f"{problem}: who waits for a swap gives up before it; lower {name}")


def _threads(settings: Settings, models: Models) -> Iterable[Finding]:
    capacity = sum(spec.capacity for spec in models)
    threads = settings.threads_for(capacity)
    if threads < capacity:
        problem = f"a worker has {threads} threads, and {capacity} requests may run or wait"
        remedy = "leave THREADS out" if settings.threads else "lower max_queue in the catalog"
        yield warn(_SUBJECT, f"{problem}: the last ones are refused early; {remedy}")


def _pinned(settings: Settings, models: Models) -> Iterable[Finding]:
    places = settings.max_loaded_models
    pinned = [spec for spec in models if spec.pinned]
    others = [spec for spec in models if not spec.pinned]
    if len(pinned) > places:
        problem = f"{len(pinned)} models are pinned, MAX_LOADED_MODELS is {places}"
        yield fail(_SUBJECT, f"{problem}; unpin {len(pinned) - places}, or raise it")
    elif len(pinned) == places and others:
        problem = f"pinned models can take all {places} places, and then {others[0].id} never loads"
        yield fail(_SUBJECT, f"{problem}; unpin one, or raise MAX_LOADED_MODELS")


def _preload(settings: Settings, models: Models) -> Iterable[Finding]:
    wanted = [spec for spec in models if spec.preload]
    if len(wanted) > settings.max_loaded_models:
        problem = f"{len(wanted)} models are to preload"
        remedy = f"MAX_LOADED_MODELS is {settings.max_loaded_models}; raise it, or preload fewer"
        yield fail(_SUBJECT, f"{problem}, {remedy}")


def _budget(settings: Settings, models: Models) -> Iterable[Finding]:
    budget = settings.max_model_memory_gb
    if not budget:
        return
    pinned = sum(_gigabytes(spec) for spec in models if spec.pinned)
    for spec in models:
        needed = pinned + (0 if spec.pinned else _gigabytes(spec))
        if needed > budget:
            beside = " with the pinned models" if pinned else ""
            problem = f"{spec.id} needs {needed:.1f} GB{beside} and can never be loaded"
            yield fail(_SUBJECT, f"{problem}; raise MAX_MODEL_MEMORY_GB ({budget:g})")
        if not _gigabytes(spec):
            problem = f"MAX_MODEL_MEMORY_GB counts {spec.id} as nothing until it was loaded once"
            yield warn(_SUBJECT, f"{problem}; give it a size_gb")
    yield from _sums(settings, models, budget)


def _sums(settings: Settings, models: Models, budget: float) -> Iterable[Finding]:
    preload = sum(_gigabytes(spec) for spec in models if spec.preload)
    if preload > budget:
        problem = f"the models to preload need {preload:.1f} GB, MAX_MODEL_MEMORY_GB is {budget:g}"
        yield fail(_SUBJECT, f"{problem}; raise it, or preload fewer")
    smallest = sorted(map(_gigabytes, models))[: settings.max_loaded_models]
    if sum(smallest) > budget:
        problem = f"{len(smallest)} models never fit into MAX_MODEL_MEMORY_GB={budget:g}"
        yield warn(_SUBJECT, f"{problem}; raise it, or lower MAX_LOADED_MODELS")


def _machine(settings: Settings, models: Models) -> Iterable[Finding]:
    """Only where the runtime shares this machine's memory."""
    total = _memory_gb()
    if total is None or not is_here(settings.ollama_host):
        return
    budget = settings.max_model_memory_gb
    largest = sorted(map(_gigabytes, models), reverse=True)[: settings.max_loaded_models]
    if budget > total:
        problem = f"MAX_MODEL_MEMORY_GB is {budget:g}, this machine has {total:.1f}"
        yield warn(_SUBJECT, f"{problem}; lower it to what may be used")
    elif not budget and sum(largest) > total:
        problem = f"the largest {len(largest)} models need {sum(largest):.1f} GB together"
        remedy = "set MAX_MODEL_MEMORY_GB, or lower MAX_LOADED_MODELS"
        yield warn(_SUBJECT, f"{problem}, this machine has {total:.1f}; {remedy}")


def _gigabytes(spec: ModelSpec) -> float:
    return spec.min_memory_gb or spec.size_gb or 0.0


def is_here(url: str) -> bool:
    """Does the runtime at this URL run on this machine?"""
    return is_loopback(url.partition("://")[2].rpartition(":")[0].strip("[]"))


def _memory_gb() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) / 1e6
    except (OSError, StopIteration):
        return None


# The agreement: whether the runtime's own settings leave MES what MES promises.

_MODELS, _REQUESTS = "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NUM_PARALLEL"

# What the runtimes do where their settings say nothing.
_USUAL = {"ollama": {_MODELS: 3, _REQUESTS: 1}, "mes-embedded": {_MODELS: 3, _REQUESTS: 4}}


def ollama_limit_findings(
    settings: Settings, catalog: Catalog, kind: str, given: Mapping[str, str]
) -> Findings:
    """Its limits against ours, where they can be seen; the rest can only be told."""
    process = _process(settings.ollama_host) if is_here(settings.ollama_host) else None
    needs, seen = _needs(settings, catalog), _seen(kind, given, process)
    found = [
        fail("runtime", f"{name} is {seen[name]}, MES needs {least}; raise it, or ask for less")
        if name in seen
        else warn("runtime", f"{name} cannot be seen; set it to {least} or more, in .env too")
        for name, least in needs.items()
        if seen.get(name, 0) < least
    ]
    yield from or_else(found, ok("runtime", "its own settings leave MES enough"))


def _needs(settings: Settings, catalog: Catalog) -> dict[str, int]:
    parallel = max((spec.max_concurrent for spec in catalog.enabled), default=1)
    return {_MODELS: settings.max_loaded_models, _REQUESTS: parallel}


def _seen(kind: str, given: Mapping[str, str], process: Mapping[str, str] | None) -> dict[str, int]:
    """The runtime's own settings: those of its process, else as they are named to us too."""
    known = process is not None or kind != "ollama"
    usual = _USUAL.get(kind, {}) if known else {}
    told = given if process is None else process
    numbers = {name: _number(told.get(name, "")) for name in (_MODELS, _REQUESTS)}
    return {**usual, **{name: number for name, number in numbers.items() if number}}


def _process(url: str) -> Mapping[str, str] | None:
    """The environment of the Ollama that listens there, if it is one that we may look into."""
    port = url.rpartition(":")[2].partition("/")[0]
    return next((each for each in _environments() if _port(each) == port), None)


def _port(environment: Mapping[str, str]) -> str:
    port = environment.get("OLLAMA_HOST", "").rpartition(":")[2]
    return port if port.isdigit() else "11434"


def _environments() -> Iterator[dict[str, str]]:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
            if words[1:2] == [b"serve"] and words[0].rpartition(b"/")[2] == b"ollama":
                lines = command.with_name("environ").read_bytes().split(b"\0")
                yield dict(line.decode(errors="replace").partition("=")[::2] for line in lines)
        except OSError:
            continue  # it has ended, or is another user's


def _number(text: str) -> int:
    # 0 is Ollama's word for "as you think best".
    return int(text) if text.isascii() and text.isdigit() else 0
