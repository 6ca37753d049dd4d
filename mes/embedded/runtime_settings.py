"""Settings of the embedded runtime, from the environment or the command line."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mes.embedded import durations
from mes.embedded.api_errors import BadRequest

SWITCHES = {"1": True, "true": True, "0": False, "false": False}


class EmbeddedSettingsError(ValueError):
    """Settings are invalid; the message has one line for each."""


@dataclass(frozen=True)
class EmbeddedSettings:
    host: str = "127.0.0.1"
    port: int = 11435
    models_dir: Path = Path("models")
    threads: int = 0
    """Threads of each model; 0 for one per core."""
    num_parallel: int = 4
    """Simultaneous requests of one model; each has the whole context."""
    max_loaded_models: int = 3
    keep_alive_seconds: float = 300.0
    context_length: int = 4096
    load_timeout_seconds: float = 300.0
    """Limit for one load and for the wait for room; 0 for no limit."""
    request_memory_mib: int = 2048
    """Memory that the requests of a model may take beyond that of the load; 0 for no limit."""
    compile_timeout_seconds: float = 60.0
    """Limit for the compilation of a grammar, and for a chat template; 0 for no limit."""
    write_timeout_seconds: float = 300.0
    """How long a client may leave an answer unread. MES reads a stream no faster than its own
    client, so this must be longer than its STREAM_WRITE_TIMEOUT."""
    prompt_cache: bool = False
    """Whether a prompt takes over what the engine has computed for an equal beginning."""

    @property
    def load_deadline_seconds(self) -> float:
        return self.load_timeout_seconds or math.inf

    @property
    def engine_threads(self) -> int:
        return self.threads or os.cpu_count() or 1


def _at_least(minimum: int) -> Callable[[str], int]:
    error = ValueError(f"must be a whole number of {minimum} or more")

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise error from None
        if number < minimum:
            raise error
        return number

    return parse


def _positive_duration(text: str) -> float:
    seconds = durations.parse_setting(text)
    if not 0 < seconds < math.inf:
        raise ValueError("must be a duration above 0, such as 5m")
    return seconds


def _switch(text: str) -> bool:
    if text.lower() not in SWITCHES:
        raise ValueError("must be true or false")
    return SWITCHES[text.lower()]


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "host": ("EMBEDDED_HOST", str),
    "port": ("EMBEDDED_PORT", _at_least(0)),
    "models_dir": ("EMBEDDED_MODELS_DIR", Path),
    "threads": ("EMBEDDED_THREADS", _at_least(0)),
    "num_parallel": ("OLLAMA_NUM_PARALLEL", _at_least(1)),
    "max_loaded_models": ("OLLAMA_MAX_LOADED_MODELS", _at_least(1)),
    "keep_alive_seconds": ("OLLAMA_KEEP_ALIVE", durations.parse_setting),
    "context_length": ("OLLAMA_CONTEXT_LENGTH", _at_least(4)),
    "request_memory_mib": ("EMBEDDED_REQUEST_MEMORY", _at_least(0)),
    "compile_timeout_seconds": ("EMBEDDED_COMPILE_TIMEOUT", durations.parse_setting),
    "write_timeout_seconds": ("EMBEDDED_WRITE_TIMEOUT", _positive_duration),
    "prompt_cache": ("EMBEDDED_PROMPT_CACHE", _switch),
    "load_timeout_seconds": ("OLLAMA_LOAD_TIMEOUT", durations.parse_setting),
}


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: Any) -> EmbeddedSettings:
    """Return the settings of this process; overrides that are not None take precedence.

    Raise `EmbeddedSettingsError` with every invalid variable.
    """
    values, errors = {}, []
    for field in fields(EmbeddedSettings):
        name, parse = VARIABLES[field.name]
        if overrides.get(field.name) is not None:
            values[field.name] = overrides[field.name]
        elif text := environ.get(name, "").strip():
            try:
                values[field.name] = parse(text)
            except (ValueError, BadRequest) as exc:
                errors.append(f"{name}={text}: {exc}")
    if errors:
        raise EmbeddedSettingsError("\n".join(errors))
    return EmbeddedSettings(**values)
