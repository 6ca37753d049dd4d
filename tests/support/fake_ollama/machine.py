"""The fake machine: it loads and unloads models and runs their generations."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.fake_ollama.disk import Disk
from tests.support.fake_ollama.loading import Loading
from tests.support.fake_ollama.model import (
    TOTALS,
    Behaviour,
    Client,
    Counters,
    Model,
    Request,
    canonical,
)
from tests.support.fake_ollama.places import Places


class Machine(Loading):
    """The models and their state. Thread-safe."""

    def __init__(self, names: list[str]) -> None:
        self.behaviour = Behaviour()
        self.overrides: dict[str, dict[str, Any]] = {}
        self.load_failures: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._places = Places()
        self.disk = Disk(names)
        self._clear_events()

    def _clear_events(self) -> None:
        self.most_in_memory: dict[str, str] = {}
        self.arrivals: list[dict[str, Any]] = []
        self.starts: list[dict[str, Any]] = []

    def find(self, name: str) -> Model | None:
        return self.disk.find(name)

    def control(self, settings: dict[str, Any]) -> None:
        """Apply the settings of `/_control` that concern models."""
        for name, behaviour in settings.get("models", {}).items():
            self.overrides[canonical(name)] = behaviour
        for name, failure in settings.get("load_failures", {}).items():
            self.load_failures[canonical(name)] = failure
        for name, abilities in settings.get("abilities", {}).items():
            for model in self.disk.named(name):
                model.abilities = abilities
        for name in settings.get("drop", []):
            for model in self.disk.named(name):
                self.drop(model)
        with self._changed:
            for name in settings.get("replaced", []):
                self.disk.replace(name)
            if "pulled" in settings:
                self.disk.keep_only(settings["pulled"])
            if settings.get("drop_orphans"):
                self.disk.drop_orphans()
                self._changed.notify_all()

    def add(self, name: str) -> None:
        """Add a model to the disk, unless it is there."""
        with self._changed:
            self.disk.add(name)

    def delete(self, name: str) -> bool:
        """Remove a model from the disk, and return whether it was there."""
        with self._changed:
            return self.disk.delete(name)

    def all(self) -> list[Model]:
        return self.disk.all()

    def listed(self) -> list[Model]:
        """Return the models that `ps` lists: loaded or unloading, but not loading; newest first."""
        with self._changed:
            for model in self.all():
                self._unload_if_idle(model)
        listed = [model for model in self.all() if model.state in ("loaded", "unloading")]
        return sorted(listed, key=lambda model: -model.loaded_at)

    def setting(self, model: Model, name: str) -> Any:
        """Return one field of the behaviour, as it is for this model."""
        overrides = self.overrides.get(canonical(model.name), {})
        return overrides.get(name, getattr(self.behaviour, name))

    def _record_memory(self) -> None:
        orphans = self.disk.orphans
        present = {
            model.name if model.name not in orphans else f"{model.name}@{model.digest}": model.state
            for model in self.all()
            if model.state != "absent" and not self._is_unnoticed(model)
        }
        if len(present) > len(self.most_in_memory):
            self.most_in_memory = present

    def _is_unnoticed(self, model: Model) -> bool:
        seconds = self.behaviour.unnoticed_seconds
        return model.replaced_at is not None and time.monotonic() - model.replaced_at < seconds

    def unload(self, model: Model) -> None:
        """Unload the model as soon as its generations have ended."""
        with self._changed:
            model.counters.unloaded_while_busy += bool(model.busy)
            if self.setting(model, "unload_ignored"):
                return
            if model.state in ("loaded", "loading"):
                model.unload_pending = True
                self._unload_if_idle(model)

    def drop(self, model: Model) -> None:
        """Remove the model from memory at once, even in use, as a restart of the runtime does."""
        with self._changed:
            self._set(model, "absent")

    @contextmanager
    def generation(
        self, model: Model, request: Request, client: Client, prompt: str
    ) -> Iterator[int]:
        """Load the model and take a slot for the block; count a client that disconnects inside.

        Yield the time when the model was loaded, in nanoseconds.
        """
        event = {"model": model.name, "prompt": prompt[:80]}
        with self._changed:
            self.arrivals.append({**event, "at": time.monotonic()})
            model.counters.implicit_loads += model.state != "loaded"
            self._add_client(model, client)
        try:
            self.load(model, request, client)
            loaded = time.monotonic_ns()
            self._take_slot(model, client)
            try:
                self.starts.append({**event, "at": time.monotonic()})
                yield loaded
            finally:
                self._release_slot(model)
        except Exception:
            model.counters.cancelled_generations += client.gone
            raise
        finally:
            with self._changed:
                model.clients.discard(client)
                model.idle_since = time.monotonic()
                self._unload_if_idle(model)

    def _add_client(self, model: Model, client: Client) -> None:
        model.clients.add(client)
        model.counters.generations += 1
        if len(model.clients) > model.counters.peak:
            model.counters.peak = max(model.counters.peak, model.busy)

    def _take_slot(self, model: Model, client: Client) -> None:
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
        parallel = 1 if model.embeds else self.setting(model, "parallel")
        return bool(parallel) and model.active >= parallel

    def _release_slot(self, model: Model) -> None:
        with self._changed:
            model.active -= 1
            self._changed.notify_all()

    def _unload_if_idle(self, model: Model) -> None:
        is_pending = model.unload_pending and model.state == "loaded" and not model.clients
        if not (is_pending or model.has_expired):
            return
        model.unload_pending = False
        model.counters.unloads += 1
        model.counters.unload_times.append(time.monotonic())
        seconds = self.setting(model, "unload_seconds")
        self._set(model, "unloading" if seconds else "absent")
        if seconds:
            timer = threading.Timer(seconds, self._finish_unload, [model])
            timer.daemon = True
            timer.start()

    def _finish_unload(self, model: Model) -> None:
        with self._changed:
            if model.state == "unloading":
                self._set(model, "absent")

    def stats(self) -> dict[str, Any]:
        with self._changed:
            models = {name: model.stats() for name, model in self.disk.entries()}
            counters = self.disk.counters()
        totals = {name: sum(getattr(each, name) for each in counters) for name in TOTALS}
        return {
            **totals,
            "peak_loaded": len(self.most_in_memory),
            "most_in_memory": self.most_in_memory,
            "loaded": [model.name for model in self.listed()],
            "orphans": self.disk.orphans,
            "arrivals": self.arrivals,
            "starts": self.starts,
            "models": models,
        }

    def reset(self) -> None:
        """Reset the counters; the models in memory stay."""
        with self._changed:
            self._clear_events()
            for counters in self.disk.counters():
                vars(counters).update(vars(Counters()))
            for model in self.all():
                model.counters.peak = max(model.counters.peak, len(model.clients))
            self._record_memory()

    def default_pieces(self, model: Model) -> Iterator[str]:
        """Return the pieces of text for a model without a `reply`: `tokens` of its vocabulary."""
        words = itertools.cycle(self.setting(model, "vocabulary"))
        return itertools.islice(words, self.setting(model, "tokens"))
