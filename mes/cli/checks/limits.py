"""Checks of the limits: contradictions between settings, catalog, machine and runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mes.cli.checks import Finding, Findings, fail, ok, or_else, warn
from mes.config.catalog import Catalog
from mes.config.settings import Settings
from mes.config.settings_schema import is_loopback
from mes.domain import ModelSpec
from mes.errors import format_number

Models = tuple[ModelSpec, ...]

_SUBJECT = "limits"
_RUNTIME = "runtime"

# Ollama's own settings, the limits of MES that they must match, and the values that the runtimes
# use if they are not set.
_MAX_LOADED, _NUM_PARALLEL = "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NUM_PARALLEL"
_MES_LIMITS = {
    _MAX_LOADED: "MAX_LOADED_MODELS",
    _NUM_PARALLEL: "max_concurrent in the catalog",
}
_DEFAULTS = {
    "ollama": {_MAX_LOADED: 3, _NUM_PARALLEL: 1},
    "mes-embedded": {_MAX_LOADED: 3, _NUM_PARALLEL: 4},
}


def limit_findings(settings: Settings, catalog: Catalog) -> Findings:
    """Yield the limits that cannot be reached or kept because of another limit."""
    checks = (_timeouts, _swap_patience, _threads, _pinned, _preload, _memory_budget, _machine)
    problems = [found for check in checks for found in check(settings, catalog.enabled)]
    yield from or_else(problems, ok(_SUBJECT, "no contradictions"))


def _timeouts(settings: Settings, models: Models) -> Iterable[Finding]:
    maximum = settings.max_timeout_seconds
    for spec in models:
        if spec.timeout_seconds > maximum:
            problem = f"the timeout of {spec.id} is {format_number(spec.timeout_seconds)} s"
            problem += f", but MAX_TIMEOUT is {format_number(maximum)} s"
            yield fail(_SUBJECT, f"{problem}; lower the timeout, or raise MAX_TIMEOUT")


def _swap_patience(settings: Settings, models: Models) -> Iterable[Finding]:
    patience = settings.swap_patience_seconds
    name = "SWAP_PATIENCE" if patience is not None else "SWAP_PATIENCE_MIN"
    minimum = settings.swap_patience_min_seconds if patience is None else patience
    queue_timeout = settings.queue_timeout_seconds
    if minimum > queue_timeout:
        problem = f"{name} is {format_number(minimum)} s, "
        problem += f"but QUEUE_TIMEOUT is {format_number(queue_timeout)} s"
        effect = "requests time out before their model may be swapped in"
        yield fail(_SUBJECT, f"{problem}: {effect}; lower {name}")


def _threads(settings: Settings, models: Models) -> Iterable[Finding]:
    capacity = sum(spec.capacity for spec in models)
    threads = settings.threads_for(capacity)
    if threads < capacity:
        problem = f"a worker has {threads} threads, but {capacity} requests may run or wait"
        # A running service reports the number that it computed from the catalog at its start.
        remedy = "lower max_queue in the catalog"
        if settings.threads:
            remedy = "restart the service if its catalog has grown, or unset THREADS"
        yield warn(_SUBJECT, f"{problem}: some are rejected before the queue is full; {remedy}")


def _pinned(settings: Settings, models: Models) -> Iterable[Finding]:
    maximum = settings.max_loaded_models
    pinned = [spec for spec in models if spec.pinned]
    others = [spec for spec in models if not spec.pinned]
    if len(pinned) > maximum:
        problem = f"{len(pinned)} models are pinned, but MAX_LOADED_MODELS is {maximum}"
        yield fail(_SUBJECT, f"{problem}; unpin {len(pinned) - maximum}, or raise it")
    elif len(pinned) == maximum and others:
        problem = f"MAX_LOADED_MODELS is {maximum}, and {maximum} models are pinned"
        effect = f"once they are loaded, {others[0].id} never loads"
        yield fail(_SUBJECT, f"{problem}: {effect}; unpin one, or raise MAX_LOADED_MODELS")


def _preload(settings: Settings, models: Models) -> Iterable[Finding]:
    preload = [spec for spec in models if spec.preload]
    maximum = settings.max_loaded_models
    if len(preload) > maximum:
        problem = f"{len(preload)} models have preload, but MAX_LOADED_MODELS is {maximum}"
        yield fail(_SUBJECT, f"{problem}; raise it, or preload fewer")


def _memory_budget(settings: Settings, models: Models) -> Iterable[Finding]:
    budget = settings.max_model_memory_gb
    if not budget:
        return
    pinned = sum(_gigabytes(spec) for spec in models if spec.pinned)
    for spec in models:
        yield from _model_memory(spec, pinned, budget)
    yield from _memory_sums(settings, models, budget)


def _model_memory(spec: ModelSpec, pinned: float, budget: float) -> Iterable[Finding]:
    needed = pinned + (0 if spec.pinned else _gigabytes(spec))
    if needed > budget:
        with_pinned = " with the pinned models" if pinned else ""
        problem = f"{spec.id} needs {needed:.1f} GB{with_pinned} and can never be loaded"
        yield fail(_SUBJECT, f"{problem}; raise MAX_MODEL_MEMORY_GB ({format_number(budget)})")
    if not _gigabytes(spec):
        problem = f"MAX_MODEL_MEMORY_GB counts {spec.id} as 0 GB until its first load"
        yield warn(_SUBJECT, f"{problem}; set its size_gb in the catalog")


def _memory_sums(settings: Settings, models: Models, budget: float) -> Iterable[Finding]:
    preload = sum(_gigabytes(spec) for spec in models if spec.preload)
    if preload > budget:
        problem = f"the models with preload need {preload:.1f} GB"
        problem += f", but MAX_MODEL_MEMORY_GB is {format_number(budget)}"
        yield fail(_SUBJECT, f"{problem}; raise it, or preload fewer")
    smallest = sorted(map(_gigabytes, models))[: settings.max_loaded_models]
    if sum(smallest) > budget:
        problem = (
            f"{len(smallest)} models never fit into MAX_MODEL_MEMORY_GB={format_number(budget)}"
        )
        yield warn(_SUBJECT, f"{problem}; raise it, or lower MAX_LOADED_MODELS")


def _machine(settings: Settings, models: Models) -> Iterable[Finding]:
    """Compare with the memory of this machine, if the runtime is on it."""
    total = _total_memory_gb()
    if total is None or not _is_local(settings.ollama_host):
        return
    budget = settings.max_model_memory_gb
    largest = sorted(map(_gigabytes, models), reverse=True)[: settings.max_loaded_models]
    if budget > total:
        problem = (
            f"MAX_MODEL_MEMORY_GB is {format_number(budget)}, but this machine has {total:.1f} GB"
        )
        yield warn(_SUBJECT, f"{problem}; lower it below that")
    elif not budget and sum(largest) > total:
        problem = f"the {len(largest)} largest models need {sum(largest):.1f} GB together"
        problem += f", but this machine has {total:.1f} GB"
        yield warn(_SUBJECT, f"{problem}; set MAX_MODEL_MEMORY_GB, or lower MAX_LOADED_MODELS")


def _gigabytes(spec: ModelSpec) -> float:
    return spec.min_memory_gb or spec.size_gb or 0.0


def _is_local(url: str) -> bool:
    return is_loopback(url.partition("://")[2].rpartition(":")[0].strip("[]"))


def _total_memory_gb() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal")) / 1e6
    except (OSError, StopIteration):
        return None


def ollama_limit_findings(
    settings: Settings, catalog: Catalog, runtime: str, environment: Mapping[str, str]
) -> Findings:
    """Yield limits of the runtime that are lower than those of MES, or cannot be determined.

    Args:
        settings: the settings of MES.
        catalog: the models, of which the largest `max_concurrent` counts.
        runtime: `ollama`, `mes-embedded`, or another name.
        environment: the environment of MES, used if the runtime's own cannot be read.
    """
    process = _ollama_environment(settings.ollama_host) if _is_local(settings.ollama_host) else None
    required = _required_limits(settings, catalog)
    actual = _actual_limits(runtime, environment, process)
    problems = [
        _limit_problem(name, minimum, actual)
        for name, minimum in required.items()
        if actual.get(name, 0) < minimum
    ]
    yield from or_else(problems, ok(_RUNTIME, "its limits are high enough for MES"))


def _limit_problem(name: str, minimum: int, actual: Mapping[str, int]) -> Finding:
    if name not in actual:
        remedy = f"set it to {minimum} or more for the runtime, and in .env"
        return warn(_RUNTIME, f"{name} cannot be determined; {remedy}")
    problem = f"{name} is {actual[name]}, but MES needs {minimum}"
    return fail(_RUNTIME, f"{problem}; raise it, or lower {_MES_LIMITS[name]}")


def _required_limits(settings: Settings, catalog: Catalog) -> dict[str, int]:
    parallel = max((spec.max_concurrent for spec in catalog.enabled), default=1)
    return {_MAX_LOADED: settings.max_loaded_models, _NUM_PARALLEL: parallel}


def _actual_limits(
    runtime: str, environment: Mapping[str, str], process: Mapping[str, str] | None
) -> dict[str, int]:
    """Return the limits from the runtime's process, else from the environment of MES.

    The defaults apply if the process was readable, or if the runtime takes its settings from the
    same environment as MES. Limits that cannot be determined are left out.
    """
    defaults_apply = process is not None or runtime != "ollama"
    defaults = _DEFAULTS.get(runtime, {}) if defaults_apply else {}
    values = environment if process is None else process
    numbers = {name: _number(values.get(name, "")) for name in (_MAX_LOADED, _NUM_PARALLEL)}
    return {**defaults, **{name: number for name, number in numbers.items() if number}}


def _ollama_environment(url: str) -> Mapping[str, str] | None:
    """Return the environment of the local Ollama at `url`; None if it cannot be read."""
    port = url.rpartition(":")[2].partition("/")[0]
    return next((each for each in _ollama_environments() if _ollama_port(each) == port), None)


def _ollama_port(environment: Mapping[str, str]) -> str:
    port = environment.get("OLLAMA_HOST", "").rpartition(":")[2]
    return port if port.isdigit() else "11434"


def _ollama_environments() -> Iterator[dict[str, str]]:
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().split(b"\0")
            if words[1:2] == [b"serve"] and words[0].rpartition(b"/")[2] == b"ollama":
                lines = cmdline.with_name("environ").read_bytes().split(b"\0")
                yield dict(line.decode(errors="replace").partition("=")[::2] for line in lines)
        except OSError:
            continue  # the process has ended, or belongs to another user


def _number(text: str) -> int:
    # Ollama takes 0 as "choose automatically", which is the same as not set.
    return int(text) if text.isascii() and text.isdigit() else 0
