"""One model of the fake runtime: its state, its clients and its counters."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# A change of one of these options reloads a model. Of those with a default of the runtime, a
# missing option matches any value.
LOAD_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap")
_WITH_DEFAULT = frozenset({"num_ctx", "num_batch", "num_gpu", "use_mmap"})


class Client(Protocol):
    @property
    def gone(self) -> bool: ...

    def wait(self, seconds: float) -> None: ...


class Request(Protocol):
    """The part of a request that the machine needs."""

    name: str

    @property
    def load_options(self) -> dict[str, Any]: ...

    @property
    def keep_alive_seconds(self) -> float | None: ...


def canonical(name: str) -> str:
    """Return the spelling of `name` that is used to compare names."""
    name = name.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass
class Behaviour:
    """Behaviour of the fake, set on the command line and by /_control."""

    tokens: int = 4
    vocabulary: Sequence[str] = (" alpha", " beta", " gamma")
    ms_per_token: float = 0.0
    in_step: bool = False
    """Whether all generations of a model get their tokens together, as in llama.cpp's batches."""
    first_token_ms: float = 0.0
    load_seconds: float = 0.02
    unload_seconds: float = 0.0
    unnoticed_seconds: float = 0.0
    """For how long a replaced model in memory is not counted: its clients cannot know of it."""
    unload_ignored: bool = False
    """Whether an unload is answered and changes nothing."""
    pull_seconds: float = 0.0
    pull_bytes: int = 4_000_000
    parallel: int = 0
    places: int = 0
    """How many models may be in memory; 0 for any number (see places.py)."""
    echo: bool = False
    reply: str | list[str] | None = None
    thinking: str = ""
    """The reasoning before each answer, in streams of a model with this ability."""
    calls: list[list[dict[str, Any]]] = field(default_factory=list)
    """Tool calls, a list for each generation; the last list is also for all later ones."""
    calls_unasked: bool = False
    """Whether calls are sent although no tools are offered, or beside a format."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """`reply`, `thinking` and `calls` of each generation, instead of the values above."""

    def take_turn(self) -> None:
        """Set the values of the next turn, if there are turns; the last one stays."""
        if self.turns:
            turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
            self.reply, self.thinking = turn.get("reply", ""), turn.get("thinking", "")
            self.calls = [turn.get("calls", [])]


@dataclass
class Counters:
    """Counters of one model; times are of `time.monotonic()`."""

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
    evictions: int = 0
    unloaded_while_busy: int = 0
    cancelled_generations: int = 0


TOTALS = [name for name, start in vars(Counters()).items() if start == 0 and name != "peak"]


DEFAULT_KEEP_ALIVE_SECONDS = 300.0


@dataclass(eq=False)
class Model:
    """One model on the fake's disk, and its clients. `loaded_as` is the name that loaded it."""

    name: str
    loaded_as: str = ""
    loaded_at: float = 0.0
    replaced_at: float | None = None
    state: str = "absent"  # loading, loaded, unloading
    options: dict[str, Any] = field(default_factory=dict)
    unload_pending: bool = False
    keep_alive_seconds: float = DEFAULT_KEEP_ALIVE_SECONDS
    """-1 for forever; 0 for a model that leaves as soon as it is idle."""
    idle_since: float = 0.0
    clients: set[Client] = field(default_factory=set)
    waiting: deque[Client] = field(default_factory=deque)
    active: int = 0
    counters: Counters = field(default_factory=Counters)
    edition: int = 1
    abilities: list[str] = field(default_factory=list)  # tools, thinking, vision

    @property
    def digest(self) -> str:
        return hashlib.sha256((canonical(self.name) * self.edition).encode()).hexdigest()

    @property
    def embeds(self) -> bool:
        """Whether it is an embedding model, by its name; then it cannot generate."""
        return "embed" in self.name or "minilm" in self.name

    @property
    def capabilities(self) -> list[str]:
        if self.embeds:
            return ["embedding"]
        return ["completion", *self.abilities, *["tools"] * ("tool" in self.name)]

    @property
    def busy(self) -> int:
        """Number of generations whose client is still connected.

        A client that has just disconnected may not have been noticed yet.
        """
        return sum(not client.gone for client in self.clients)

    @property
    def has_expired(self) -> bool:
        """Whether it is idle and was not used for as long as it is kept."""
        kept_seconds = self.keep_alive_seconds
        is_idle = self.state == "loaded" and not self.clients
        return is_idle and 0 <= kept_seconds <= time.monotonic() - self.idle_since

    def fits(self, options: dict[str, Any]) -> bool:
        """Return whether the model is loaded with these options."""
        return all(
            options.get(name, self.options.get(name) if name in _WITH_DEFAULT else None)
            == self.options.get(name)
            for name in (*LOAD_OPTIONS, "shift")
        )

    def stats(self) -> dict[str, Any]:
        current = {"state": self.state, "options": self.options, "current": len(self.clients)}
        return {**current, **vars(self.counters)}
