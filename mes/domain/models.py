"""Models: how one is configured, and what the runtime says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Changing one of these between requests makes Ollama reload the model, so they belong to the
# model's configuration and are sent alike on the load and on every generation.
LOAD_OPTIONS = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "draft_num_predict",
    }
)


def normalise(name: str) -> str:
    """The one spelling of a model name, matched as Ollama matches it.

    Case does not count, `:latest` and the default registry and namespace are implied. A `:`
    separates a tag only after the last `/` (before it stands a registry's port).
    """
    name = name.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the catalog: what may be run, and how."""

    id: str
    tag: str
    display_name: str
    enabled: bool
    preload: bool
    pinned: bool
    max_concurrent: int
    max_queue: int
    supports_json_mode: bool
    timeout_seconds: float
    max_tokens: int
    temperature: float
    max_attempts: int = 2
    context_window: int | None = None
    size_gb: float | None = None
    min_memory_gb: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        """How many requests may run or wait at a time."""
        return self.max_concurrent + self.max_queue

    @property
    def load_options(self) -> dict[str, Any]:
        """The options that are part of the loaded model, alike for every request."""
        chosen = {name: value for name, value in self.options.items() if name in LOAD_OPTIONS}
        if self.context_window is not None:
            chosen.setdefault("num_ctx", self.context_window)
        return chosen


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model the runtime holds in memory, in the runtime's own words."""

    name: str
    digest: str
    quantization: str
    size_bytes: int
    vram_bytes: int
    context_length: int | None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model the runtime has on disk; `capabilities` is None until the runtime was asked."""

    name: str
    digest: str
    size_bytes: int
    quantization: str
    parameter_size: str
    capabilities: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that the runtime knows of one model."""

    quantization: str
    parameter_size: str
    context_length: int | None
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull has come, in the runtime's own words; the bytes are those of one file."""

    status: str
    completed_bytes: int | None = None
    total_bytes: int | None = None
