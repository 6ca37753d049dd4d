"""The agreement: whether the runtime's own settings leave MES what MES promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mes.cli.checks.finding import Findings, fail, ok, or_else, warn
from mes.cli.checks.limits import is_here
from mes.config.catalog import Catalog
from mes.config.settings import Settings

_MODELS, _REQUESTS = "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NUM_PARALLEL"

# What the runtimes do where their settings say nothing.
_USUAL = {"ollama": {_MODELS: 3, _REQUESTS: 1}, "mes-embedded": {_MODELS: 3, _REQUESTS: 4}}


def findings(settings: Settings, catalog: Catalog, kind: str, given: Mapping[str, str]) -> Findings:
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
