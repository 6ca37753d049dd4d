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
    peak_loaded: int = 0
    peaks: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, stats: dict[str, Any]) -> None:
        """The records of a life that ends."""
        self.lives += 1
        self.peak_loaded = max(self.peak_loaded, stats["peak_loaded"])
        for model, books in stats["models"].items():
            self.peaks[model] = max(self.peaks[model], books["peak"])
        self.totals.update({name: stats[name] for name in (*_SUMMED, *_NEVER)})

    def told(self) -> dict[str, Any]:
        """For a report."""
        own = {"lives": self.lives, "peak_loaded": self.peak_loaded}
        return {**own, "peaks": dict(self.peaks), "totals": dict(self.totals)}

    def breaches(self, places: int, concurrent: int) -> list[str]:
        """Where the runtime saw more than there may be."""
        found = [f"{self.peak_loaded} models in memory"] if self.peak_loaded > places else []
        over = {model: peak for model, peak in self.peaks.items() if peak > concurrent}
        found += [f"{peak} generations of {model} at a time" for model, peak in over.items()]
        return found + [f"{name}: {self.totals[name]}" for name in _NEVER if self.totals[name]]
