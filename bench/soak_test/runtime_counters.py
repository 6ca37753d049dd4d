"""The counters of the fake runtime, added up over its restarts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SUMMED = ("generations", "loads", "unloads", "implicit_loads", "cancelled_generations")
_NEVER = ("reloads", "unloaded_while_busy")


@dataclass
class RuntimeCounters:
    """Totals over all runs of the runtime, and the highest peak of any run."""

    runs: int = 0
    most_in_memory: dict[str, str] = field(default_factory=dict)
    peaks: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, stats: dict[str, Any]) -> None:
        """Add the counters of a run that ends."""
        self.runs += 1
        self.most_in_memory = max(self.most_in_memory, stats["most_in_memory"], key=len)
        for model, counters in stats["models"].items():
            self.peaks[model] = max(self.peaks[model], counters["peak"])
        self.totals.update({name: stats[name] for name in (*_SUMMED, *_NEVER)})

    def document(self) -> dict[str, Any]:
        """Return the counters for the report."""
        summary = {"lives": self.runs, "peak_loaded": len(self.most_in_memory)}
        return {**summary, "peaks": dict(self.peaks), "totals": dict(self.totals)}

    def breaches(self, places: int, concurrent: int) -> list[str]:
        """Return a description of each limit that the runtime saw exceeded."""
        too_many = len(self.most_in_memory) > places
        found = [f"in memory at a time: {self.most_in_memory}"] if too_many else []
        over = {model: peak for model, peak in self.peaks.items() if peak > concurrent}
        found += [f"{peak} generations of {model} at a time" for model, peak in over.items()]
        return found + [f"{name}: {self.totals[name]}" for name in _NEVER if self.totals[name]]
