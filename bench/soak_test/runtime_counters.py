"""Records: what the fake runtime wrote down of its client, over all its lives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SUMMED = ("generations", "loads", "unloads", "implicit_loads", "cancelled_generations")
_NEVER = ("reloads", "unloaded_while_busy")


@dataclass
class Records:
    """Added up over the runtime's restarts; the peaks are those of its worst life."""

    lives: int = 0
    most_in_memory: dict[str, str] = field(default_factory=dict)
    peaks: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, stats: dict[str, Any]) -> None:
        """The records of a life that ends."""
        self.lives += 1
        self.most_in_memory = max(self.most_in_memory, stats["most_in_memory"], key=len)
        for model, books in stats["models"].items():
            self.peaks[model] = max(self.peaks[model], books["peak"])
        self.totals.update({name: stats[name] for name in (*_SUMMED, *_NEVER)})

    def told(self) -> dict[str, Any]:
        """For a report."""
        own = {"lives": self.lives, "peak_loaded": len(self.most_in_memory)}
        return {**own, "peaks": dict(self.peaks), "totals": dict(self.totals)}

    def breaches(self, places: int, concurrent: int) -> list[str]:
        """Where the runtime saw more than there may be."""
        too_many = len(self.most_in_memory) > places
        found = [f"in memory at a time: {self.most_in_memory}"] if too_many else []
        over = {model: peak for model, peak in self.peaks.items() if peak > concurrent}
        found += [f"{peak} generations of {model} at a time" for model, peak in over.items()]
        return found + [f"{name}: {self.totals[name]}" for name in _NEVER if self.totals[name]]
