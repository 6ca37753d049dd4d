"""The memory that the fake runtime's models share: loads, unloads and places to generate in."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.fake_ollama.model import SUMMED, Behaviour, Books, Client, Model, canonical

_LOOKS_EVERY_SECONDS = 0.02


class ClientGone(Exception):
    """The client hung up while it waited for a place."""


class LoadFailure(Exception):
    """The load was to fail."""


class Machine:
    """The memory that the models share. Thread-safe."""

    def __init__(self, names: list[str]) -> None:
        self.behaviour = Behaviour()
        self.overrides: dict[str, dict[str, Any]] = {}
        self.load_failures: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._models = {canonical(name): Model(name) for name in names}
        self._forget()

    def _forget(self) -> None:
        self.most_in_memory: dict[str, str] = {}
        self.arrivals: list[dict[str, Any]] = []
        self.starts: list[dict[str, Any]] = []

    def find(self, name: str) -> Model | None:
        return self._models.get(canonical(name))

    def emit(self, told: dict[str, Any]) -> None:
        """Take what `/_control` says about models."""
        self.overrides.update(
            {canonical(name): own for name, own in told.get("models", {}).items()}
        )
        failures = told.get("load_failures", {})
        self.load_failures.update({canonical(name): each for name, each in failures.items()})
        for name in told.get("drop", []):
            self.drop(self._models[canonical(name)])
        for name in told.get("replaced", []):
            self._models[canonical(name)].edition += 1
        if "pulled" in told:
            self._models = {
                canonical(name): self.find(name) or Model(name) for name in told["pulled"]
            }

    def add(self, name: str) -> None:
        """From now on the model is on disk."""
        self._models.setdefault(canonical(name), Model(name))

    def all(self) -> list[Model]:
        return list(self._models.values())

    def listed(self) -> list[Model]:
        """Those that `ps` shows: not the ones that are loading, still the ones that leave."""
        return [model for model in self.all() if model.state in ("loaded", "unloading")]

    def of(self, model: Model, name: str) -> Any:
        """One trait of the behaviour, as it is for this model."""
        own = self.overrides.get(canonical(model.name), {})
        return own.get(name, getattr(self.behaviour, name))

    def load(self, model: Model, options: dict[str, Any], client: Client) -> None:
        """Returns when the model is loaded with these options. Raises LoadFailure."""
        with self._changed:
            while not (model.state == "loaded" and model.fits(options)):
                if model.state == "absent":
                    break
                if model.state == "loaded" and not model.active:
                    model.books.reloads += 1
                    break
                self._wait(client)
            else:
                model.leaving = False  # asked for again before it left
                return
            self._begin_load(model)
        try:
            client.wait(self.of(model, "load_seconds"))
        except Exception:
            with self._changed:
                model.books.cancelled_loads += 1
                self._set(model, "absent")
            raise
        self._end_load(model, options)

    def _begin_load(self, model: Model) -> None:
        self._set(model, "loading")
        model.leaving = False
        self._note_memory()

    def _note_memory(self) -> None:
        there = {each.name: each.state for each in self.all() if each.state != "absent"}
        if len(there) > len(self.most_in_memory):
            self.most_in_memory = there

    def _end_load(self, model: Model, options: dict[str, Any]) -> None:
        with self._changed:
            failure = self.load_failures.get(canonical(model.name), {"times": 0})
            if failure["times"] > 0:
                failure["times"] -= 1
                model.books.failed_loads += 1
                self._set(model, "absent")
                raise LoadFailure(failure.get("text", "llama-server process has terminated: OK"))
            if model.state != "loading":
                raise LoadFailure("the load was called off")
            model.options = dict(options)
            model.books.loads += 1
            model.books.load_times.append(time.monotonic())
            self._set(model, "loaded")
            self._leave_if_idle(model)

    def unload(self, model: Model) -> None:
        """Begin to unload, or remember to once the running generations end."""
        with self._changed:
            model.books.unloaded_while_busy += bool(model.busy)
            if model.state in ("loaded", "loading"):
                model.leaving = True
                self._leave_if_idle(model)

    def drop(self, model: Model) -> None:
        """The model vanishes, whoever uses it: as if the runtime had been restarted."""
        with self._changed:
            self._set(model, "absent")

    @contextmanager
    def generation(
        self, model: Model, options: dict[str, Any], client: Client, prompt: str
    ) -> Iterator[None]:
        """A place to generate in, with the model loaded; whoever hangs up inside is counted."""
        note = {"model": model.name, "prompt": prompt[:80]}
        with self._changed:
            self.arrivals.append({**note, "at": time.monotonic()})
            model.books.implicit_loads += model.state != "loaded"
            self._enter(model, client)
        try:
            self.load(model, options, client)
            self._take_place(model, client)
            try:
                self.starts.append({**note, "at": time.monotonic()})
                yield
            finally:
                self._give_place_back(model)
        except Exception:
            model.books.cancelled_generations += client.gone
            raise
        finally:
            with self._changed:
                model.clients.discard(client)
                self._leave_if_idle(model)

    def _enter(self, model: Model, client: Client) -> None:
        model.clients.add(client)
        model.books.generations += 1
        model.leaving = False
        if len(model.clients) > model.books.peak:
            model.books.peak = max(model.books.peak, model.busy)

    def _take_place(self, model: Model, client: Client) -> None:
        with self._changed:
            model.waiting.append(client)
            try:
                while model.waiting[0] is not client or self._is_full(model):
                    self._wait(client)
                model.active += 1
            finally:
                model.waiting.remove(client)
                self._changed.notify_all()

    def _is_full(self, model: Model) -> bool:
        parallel = self.of(model, "parallel")
        return bool(parallel) and model.active >= parallel

    def _give_place_back(self, model: Model) -> None:
        with self._changed:
            model.active -= 1
            self._changed.notify_all()

    def _leave_if_idle(self, model: Model) -> None:
        if not (model.leaving and model.state == "loaded" and not model.clients):
            return
        model.leaving = False
        model.books.unloads += 1
        model.books.unload_times.append(time.monotonic())
        seconds = self.of(model, "unload_seconds")
        self._set(model, "unloading" if seconds else "absent")
        if seconds:
            timer = threading.Timer(seconds, self._unloaded, [model])
            timer.daemon = True
            timer.start()

    def _unloaded(self, model: Model) -> None:
        with self._changed:
            if model.state == "unloading":
                self._set(model, "absent")

    def _set(self, model: Model, state: str) -> None:
        model.state = state
        self._changed.notify_all()

    def _wait(self, client: Client) -> None:
        self._changed.wait(_LOOKS_EVERY_SECONDS)
        if client.gone:
            raise ClientGone

    def stats(self) -> dict[str, Any]:
        with self._changed:
            models = {model.name: model.stats() for model in self.all()}
        totals = {name: sum(books[name] for books in models.values()) for name in SUMMED}
        return {
            **totals,
            "peak_loaded": len(self.most_in_memory),
            "most_in_memory": self.most_in_memory,
            "loaded": [model.name for model in self.listed()],
            "arrivals": self.arrivals,
            "starts": self.starts,
            "models": models,
        }

    def reset(self) -> None:
        """Forget what was counted; what is in memory stays there."""
        with self._changed:
            self._forget()
            for model in self.all():
                model.books = Books(peak=len(model.clients))
            self._note_memory()

    def words(self, model: Model) -> Iterator[str]:
        """What an untold model says: as many words as it was told to."""
        words = itertools.cycle(self.of(model, "vocabulary"))
        return itertools.islice(words, self.of(model, "tokens"))
