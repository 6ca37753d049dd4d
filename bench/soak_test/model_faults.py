"""Faults of models: deleted or updated while they are loaded, and not unloaded when asked to."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from bench.soak_test.environment import MODELS
from bench.soak_test.load import RequestOutcome
from tests.support.service import FakeOllama

# The time in which MES must notice that a model is back, also while a worker is stopped.
_NOTICED_SECONDS = 15.0
NOT_PULLED = "model_not_pulled"


@dataclass
class ModelFaults:
    """Changes the models of the runtime, and undoes the changes later."""

    runtime: FakeOllama
    rng: random.Random
    # The times of each deletion and of its undoing, by model.
    deletions: list[tuple[str, float, float]] = field(default_factory=list)
    _deleted: dict[str, float] = field(default_factory=dict)

    def delete(self) -> None:
        """Delete a model that is in memory, where it stays."""
        for model in self._chosen():
            self._deleted.setdefault(model, time.monotonic())
            self.runtime.control(pulled=[each for each in MODELS if each not in self._deleted])

    def update(self) -> None:
        """Replace a model that is in memory by another version; the old one stays there too."""
        self.runtime.control(replaced=self._chosen())

    def stick(self) -> None:
        """Let the runtime ignore that it must unload a model."""
        self.runtime.control(models={each: {"unload_ignored": True} for each in self._chosen()})

    def undo(self) -> None:
        """Put the deleted models back, remove old versions from memory, and unload again."""
        unchanged: dict[str, object] = {each: {} for each in MODELS}
        self.runtime.control(pulled=MODELS, drop_orphans=True, models=unchanged)
        now = time.monotonic()
        self.deletions += [(model, began, now) for model, began in self._deleted.items()]
        self._deleted.clear()

    def explain(self, outcome: RequestOutcome) -> bool:
        """Return whether the model of the request was deleted at the time."""
        return any(
            model == outcome.model
            and began <= outcome.ended_at
            and outcome.sent_at <= ended + _NOTICED_SECONDS
            for model, began, ended in self.deletions
        )

    def _chosen(self) -> list[str]:
        """Return one of the models in memory that are not deleted, or none."""
        loaded = sorted(set(self.runtime.stats()["loaded"]) - set(self._deleted))
        return self.rng.sample(loaded, min(1, len(loaded)))
