"""One model of the fake runtime: its state, who uses it, and what was counted about it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# A change of one of these reloads a model. Those that may be left to the runtime match what is
# loaded when they are not given.
LOADER = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap")
_LEFT_TO_THE_RUNTIME = frozenset({"num_ctx", "num_batch", "num_gpu", "use_mmap"})


class Client(Protocol):
    @property
    def gone(self) -> bool: ...

    def wait(self, seconds: float) -> None: ...


def canonical(name: str) -> str:
    """The spelling by which two names are compared."""
    name = name.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass
class Behaviour:
    """How the fake is to act; set on the command line and through /_control."""

    tokens: int = 4
    vocabulary: Sequence[str] = (" alpha", " beta", " gamma")
    ms_per_token: float = 0.0
    in_step: bool = False
    """does each step of a model give a token to all it generates, as llama.cpp's batches do?"""
    first_token_ms: float = 0.0
    load_seconds: float = 0.02
    unload_seconds: float = 0.0
    pull_seconds: float = 0.0
    pull_bytes: int = 4_000_000
    parallel: int = 0
    echo: bool = False
    reply: str | list[str] | None = None


@dataclass
class Books:
    """What has been counted about one model; times are of `time.monotonic()`."""

    peak: int = 0
    generations: int = 0
    loads: int = 0
    load_times: list[float] = field(default_factory=list)
    failed_loads: int = 0
    cancelled_loads: int = 0
    implicit_loads: int = 0
    reloads: int = 0
    unloads: int = 0
    unload_times: list[float] = field(default_factory=list)
    unloaded_while_busy: int = 0
    cancelled_generations: int = 0


SUMMED = [name for name, start in vars(Books()).items() if start == 0 and name != "peak"]


@dataclass(eq=False)
class Model:
    """One model on the fake's disk, and who uses it."""

    name: str
    state: str = "absent"  # loading, loaded, unloading
    options: dict[str, Any] = field(default_factory=dict)
    leaving: bool = False
    keep_alive_seconds: float = 300.0
    clients: set[Client] = field(default_factory=set)
    waiting: deque[Client] = field(default_factory=deque)
    active: int = 0
    books: Books = field(default_factory=Books)
    edition: int = 1

    @property
    def digest(self) -> str:
        return hashlib.sha256((canonical(self.name) * self.edition).encode()).hexdigest()

    @property
    def embeds(self) -> bool:
        """As with real ones, its name says so; then it can do nothing else."""
        return "embed" in self.name or "minilm" in self.name

    @property
    def capabilities(self) -> list[str]:
        return ["embedding" if self.embeds else "completion"]

    @property
    def busy(self) -> int:
        """Generations whose client still waits.

        One that hung up a moment ago and has not been noticed yet is nobody's fault.
        """
        return sum(not client.gone for client in self.clients)

    def fits(self, options: dict[str, Any]) -> bool:
        return all(
            options.get(name, self.options.get(name) if name in _LEFT_TO_THE_RUNTIME else None)
            == self.options.get(name)
            for name in (*LOADER, "shift")
        )

    def stats(self) -> dict[str, Any]:
        now = {"state": self.state, "options": self.options, "current": len(self.clients)}
        return {**now, **vars(self.books)}
