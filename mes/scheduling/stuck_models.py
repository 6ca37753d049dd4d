"""Stuck models: their places, their memory, and the words about them."""

from __future__ import annotations

from collections.abc import Iterable

from mes.scheduling.memory import Memory
from mes.scheduling.registry import DELETED, NOT_UNLOADED, REPLACED, StuckRunner

_PROBLEMS = {
    DELETED: "{model} was deleted while it was loaded and stays in the runtime's memory; "
    "pull {model} again and unload it, or restart the runtime",
    REPLACED: "an earlier version of {model} was replaced while it was loaded and stays in the "
    "runtime's memory; restart the runtime",
    NOT_UNLOADED: "the runtime does not unload {model}; end its use by other programs, or restart "
    "the runtime",
}


def problem(model: str, cause: str) -> str:
    """Return a sentence about a stuck model: its name, the cause and the remedy."""
    return _PROBLEMS[cause].format(model=model)


def is_deleted(memory: Memory, model: str) -> bool:
    """Return whether the model was deleted while it was loaded."""
    return any(each.model == model and each.cause == DELETED for each in memory.stuck.values())


def all_stuck(memory: Memory) -> list[StuckRunner]:
    """Return the models that cannot be made to leave memory, those that still serve included."""
    residents = map(memory.registry.peek, _not_unloaded(memory))
    return [
        *memory.stuck.values(),
        *(
            StuckRunner(each.model, each.digest or "", NOT_UNLOADED, each.since, each.size_bytes)
            for each in residents
        ),
    ]


def problems(memory: Memory) -> list[str]:
    """Return a sentence about each model that cannot be made to leave memory."""
    return [problem(each.model, each.cause) for each in all_stuck(memory)]


def size_bytes(memory: Memory) -> int:
    """Return how much memory the stuck models without a place in the registry take up."""
    return sum(each.size_bytes for each in memory.stuck.values())


def kept_places(memory: Memory, pinned: Iterable[str]) -> set[str]:
    """Return the places in the registry that cannot become free: `pinned`, or not unloaded."""
    kept = filter(memory.kept, _not_unloaded(memory))
    return {*filter(memory.registry.__contains__, pinned), *kept}


def places_lost(memory: Memory, pinned: Iterable[str]) -> str | None:
    """Return why no model can be loaded, if stuck and pinned models take up all places."""
    sentences = problems(memory)
    taken = len(kept_places(memory, pinned)) + len(memory.stuck)
    if not sentences or taken < memory.places:
        return None
    return f"no place in memory can become free: {'; '.join(sentences)}"


def _not_unloaded(memory: Memory) -> list[str]:
    return [place for place in memory.unload_failures if place in memory.registry]
