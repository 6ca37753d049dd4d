"""The names of the models in memory: Ollama runs the models of one digest once, for all names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mes.domain import LoadedModel, ModelSpec, PulledModel
from mes.scheduling.registry import DELETED, REPLACED, StuckRunner, runner_key


class RunnerNames:
    """The names that lead to each model in the runtime's memory.

    The runtime lists a model in memory by the name that loaded it. That name may have been deleted
    since, or given to another version; other names of the same digest lead to the model as well.

    Args:
        pulled: The models on disk, by name, listed after the models in memory.
        catalog: The models of the catalog, by name.
    """

    def __init__(self, pulled: Mapping[str, PulledModel], catalog: Mapping[str, ModelSpec]) -> None:
        self._pulled = pulled
        self._names: dict[str, list[str]] = {}
        for name in (*(name for name in catalog if name in pulled), *pulled):
            names = self._names.setdefault(pulled[name].digest, [])
            if name not in names:
                names.append(name)
        self._aliases = dict(_aliases(self._names.values(), catalog))

    def aliases(self, listed: Iterable[LoadedModel]) -> dict[str, str]:
        """Return the aliases of names, and those of the listed models with another name now."""
        return {
            **self._aliases,
            **{
                runner_key(each.name, each.digest): place
                for each in listed
                if (place := self.place_of(each.name, each.digest)) not in (None, each.name)
            },
        }

    def place_of(self, name: str, digest: str) -> str | None:
        """Return the place of a model in memory; None if no name leads to it."""
        names = self._names.get(digest, [])
        if not names:
            return None
        name = name if name in names else names[0]
        return self._aliases.get(name, name)

    def unreachable(self, listed: Iterable[LoadedModel], now: float) -> list[StuckRunner]:
        """Return the listed models that no name leads to."""
        return [
            StuckRunner(each.name, each.digest, self._cause(each.name), now, each.size_bytes)
            for each in listed
            if self.place_of(each.name, each.digest) is None
        ]

    def _cause(self, name: str) -> str:
        return REPLACED if name in self._pulled else DELETED


def _aliases(
    groups: Iterable[list[str]], catalog: Mapping[str, ModelSpec]
) -> Iterable[tuple[str, str]]:
    """Yield each name that shares the place of another one, with that name.

    Names of one digest share a place if their load options are equal: other options make the
    runtime load the model again. A name that is not in the catalog has no options; it shares the
    place of the others if these have only one.
    """
    for names in groups:
        places: dict[Any, str] = {}
        for name in filter(catalog.__contains__, names):
            place = places.setdefault(tuple(sorted(catalog[name].load_options.items())), name)
            if place != name:
                yield name, place
        if len(places) == 1:
            (place,) = places.values()
            yield from ((name, place) for name in names if name not in catalog)
