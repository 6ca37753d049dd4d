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


class EmbeddedSettingsError(ValueError):
    """One line for each setting that is wrong"""


@dataclass(frozen=True)
class EmbeddedSettings:
    host: str = "127.0.0.1"
    port: int = 11435
    models_dir: Path = Path("models")
    threads: int = 0
    """per model; 0 is as many as there are cores"""
    num_parallel: int = 4
    """requests that one model answers at a time; each has the whole context"""
    max_loaded_models: int = 3
    keep_alive_seconds: float = 300.0
    context_length: int = 4096
    load_timeout_seconds: float = 300.0
    """for one load, and for waiting until there is room for it; 0 is no limit"""

    @property
    def load_deadline_seconds(self) -> float:
        return self.load_timeout_seconds or math.inf

    @property
    def engine_threads(self) -> int:
        return self.threads or os.cpu_count() or 1


def _at_least(minimum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise ValueError(f"must be {minimum} or more")
        return number

    return read


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "host": ("EMBEDDED_HOST", str),
    "port": ("EMBEDDED_PORT", _at_least(0)),
    "models_dir": ("EMBEDDED_MODELS_DIR", Path),
    "threads": ("EMBEDDED_THREADS", _at_least(0)),
    "num_parallel": ("OLLAMA_NUM_PARALLEL", _at_least(1)),
    "max_loaded_models": ("OLLAMA_MAX_LOADED_MODELS", _at_least(1)),
    "keep_alive_seconds": ("OLLAMA_KEEP_ALIVE", durations.parse_setting),
    "context_length": ("OLLAMA_CONTEXT_LENGTH", _at_least(4)),
    "load_timeout_seconds": ("OLLAMA_LOAD_TIMEOUT", durations.parse_setting),
}


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: Any) -> EmbeddedSettings:
    """Settings of this process; an override that is not None wins over the environment"""
    values, mistakes = {}, []
    for field in fields(EmbeddedSettings):
        name, read = VARIABLES[field.name]
        if overrides.get(field.name) is not None:
            values[field.name] = overrides[field.name]
        elif text := environ.get(name, "").strip():
            try:
                values[field.name] = read(text)
            except (ValueError, BadRequest) as exc:
                mistakes.append(f"{name}={text}: {exc}")
    if mistakes:
        raise EmbeddedSettingsError("\n".join(mistakes))
    return EmbeddedSettings(**values)
