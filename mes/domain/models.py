"""Models: their configuration in the catalog, and their description by the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# Ollama reloads a model when one of these changes between two requests. They are therefore part of
# the model's configuration, and the load and every generation send the same values.
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
    """Return the canonical spelling of a model name, by the rules of Ollama.

    Names are compared without case; the tag `latest`, the default registry and the default
    namespace are implied. A `:` starts a tag only after the last `/`; before that it starts the
    port of a registry.
    """
    name = name.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalog, with its options and limits.

    `id` is the name that clients use, `tag` the runtime's name in canonical spelling.
    `max_concurrent` limits the running requests, `max_queue` the waiting ones. `size_gb` and
    `min_memory_gb` are in gigabytes, `context_window` is in tokens. `timeout_setting` names the
    setting that `timeout_seconds` comes from.
    """

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
    timeout_setting: str = "DEFAULT_TIMEOUT"
    context_window: int | None = None
    size_gb: float | None = None
    min_memory_gb: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def capacity(self) -> int:
        """The most requests that may run or wait at a time."""
        return self.max_concurrent + self.max_queue

    @cached_property
    def load_options(self) -> Mapping[str, Any]:
        """The options that are part of the loaded model, the same for every request."""
        options = {name: value for name, value in self.options.items() if name in LOAD_OPTIONS}
        if self.context_window is not None:
            options.setdefault("num_ctx", self.context_window)
        return options


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in the runtime's memory, as the runtime describes it.

    `vram_bytes` is the part of `size_bytes` in the GPU's memory; `context_length` is in tokens.
    """

    name: str
    digest: str
    quantization: str
    size_bytes: int
    vram_bytes: int
    context_length: int | None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model on the runtime's disk. `capabilities` is None until the runtime has listed them.

    `slots` is how many requests the runtime serves at a time with it; None if that is unknown.
    """

    name: str
    digest: str
    size_bytes: int
    quantization: str
    parameter_size: str
    capabilities: tuple[str, ...] | None = None
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The runtime's full description of one model. `context_length` is in tokens."""

    quantization: str
    parameter_size: str
    context_length: int | None
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull. `status` is the runtime's text; the bytes are those of one file."""

    status: str
    completed_bytes: int | None = None
    total_bytes: int | None = None
