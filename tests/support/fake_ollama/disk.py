"""The names on the fake's disk, and the models behind them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tests.support.fake_ollama.model import Counters, Model, canonical


class Disk:
    """Names of models. As in Ollama, copies of a name lead to one model, which is loaded once.

    A model that is deleted or replaced while it is in memory stays there: it is orphaned, and no
    request reaches it, unless its name comes back.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._spellings = {canonical(name): name for name in names}
        self._models = {key: Model(name) for key, name in self._spellings.items()}
        self._orphans: list[Model] = []
        self._deleted: dict[str, Model] = {}

    def find(self, name: str) -> Model | None:
        return self._models.get(canonical(name))

    def entries(self) -> list[tuple[str, Model]]:
        """Return each name with its model."""
        return [(self._spellings[key], model) for key, model in self._models.items()]

    def all(self) -> list[Model]:
        """Return all models, the orphaned ones included."""
        self._orphans = [model for model in self._orphans if model.state != "absent"]
        return [*dict.fromkeys(self._models.values()), *self._orphans]

    def counters(self) -> list[Counters]:
        """Return the counters of all models, the deleted ones included."""
        models = [*self.all(), *self._deleted.values()]
        return list({id(model.counters): model.counters for model in models}.values())

    @property
    def orphans(self) -> list[str]:
        return [model.name for model in self.all() if model in self._orphans]

    def named(self, name: str) -> list[Model]:
        """Return the models that have this name or had it."""
        return [model for model in self.all() if canonical(name) == canonical(model.name)]

    def add(self, name: str) -> None:
        """Add a model, unless it is there. One that is still in memory is found there."""
        if canonical(name) in self._models:
            return
        new = self._pulled_again(name)
        orphans = [model for model in self._orphans if model.digest == new.digest]
        self._orphans = [model for model in self._orphans if model not in orphans]
        self._put(name, orphans[0] if orphans else new)

    def _pulled_again(self, name: str) -> Model:
        """Return a new model, with its counters of the time before it was deleted."""
        earlier = self._deleted.pop(canonical(name), None) or Model(name)
        return Model(name, counters=earlier.counters)

    def copy(self, source: str, destination: str) -> bool:
        """Make another name of a model; return whether the model was found."""
        model = self.find(source)
        if model is not None:
            self._put(destination, model)
        return model is not None

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it was there."""
        model = self._models.pop(canonical(name), None)
        if model is not None:
            self._deleted[canonical(name)] = model
            self._orphan(model)
        return model is not None

    def drop_orphans(self) -> None:
        """Remove from memory the models that no name leads to."""
        for model in self._orphans:
            model.state = "absent"

    def replace(self, name: str) -> None:
        """Give the name another version of the model, as a pull does."""
        model = self._models[canonical(name)]
        new = Model(model.name, edition=model.edition + 1, abilities=model.abilities)
        new.counters = model.counters
        model.replaced_at = time.monotonic()
        self._put(name, new)
        self._orphan(model)

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete all names but these, and add those that are new."""
        wanted = {canonical(name): name for name in names}
        for key in [key for key in self._models if key not in wanted]:
            self.delete(key)
        for name in wanted.values():
            self.add(name)

    def _put(self, name: str, model: Model) -> None:
        model.replaced_at = None
        self._spellings[canonical(name)] = name
        self._models[canonical(name)] = model

    def _orphan(self, model: Model) -> None:
        if model.state != "absent" and model not in self._models.values():
            self._orphans.append(model)
