"""Loads of the fake machine: one after the other where places are limited."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.fake_ollama.connection import ClientGone
from tests.support.fake_ollama.model import (
    DEFAULT_KEEP_ALIVE_SECONDS,
    Client,
    Model,
    Request,
    canonical,
)
from tests.support.fake_ollama.places import Places

_CLIENT_CHECK_SECONDS = 0.02


class LoadFailure(Exception):
    """The load fails, as /_control demanded."""


class Loading:
    """The part of the machine that loads models."""

    _changed: threading.Condition
    _places: Places
    load_failures: dict[str, dict[str, Any]]

    def all(self) -> list[Model]:
        raise NotImplementedError

    def setting(self, model: Model, name: str) -> Any:
        raise NotImplementedError

    def _unload_if_idle(self, model: Model) -> None:
        raise NotImplementedError

    def _record_memory(self) -> None:
        raise NotImplementedError

    def load(self, model: Model, request: Request, client: Client) -> None:
        """Load the model with the options of the request and return when it is loaded.

        Raise `LoadFailure`, or `ClientGone` if the client disconnects.
        """
        self._keep(model, request.keep_alive_seconds)
        with self._turn_to_load(model, request, client) as is_due:
            if is_due:
                self._load_now(model, request, client)

    def _keep(self, model: Model, seconds: float | None) -> None:
        """Keep the model for so long without use: also one that was to leave, or was marked to."""
        with self._changed:
            if seconds is not None and model.state == "loaded":
                model.keep_alive_seconds = seconds
                model.unload_pending = False
                model.idle_since = time.monotonic()

    @contextmanager
    def _turn_to_load(self, model: Model, request: Request, client: Client) -> Iterator[bool]:
        """Yield whether the model has to be loaded, which has begun then."""
        position = self._places.join()
        try:
            with self._changed:
                is_due = self._wait_for_turn(model, request.load_options, client, position)
                if is_due:
                    self._begin_load(model, request.name)
                else:
                    self._places.leave(position)
            yield is_due
        finally:
            with self._changed:
                self._places.leave(position)
                self._changed.notify_all()

    def _wait_for_turn(
        self, model: Model, options: dict[str, Any], client: Client, position: object
    ) -> bool:
        """Wait until the model is loaded, or may be loaded now, and return whether it may."""
        while not (model.state == "loaded" and model.fits(options)):
            if model.state == "absent" and self._may_begin(model, position):
                return True
            if model.state == "loaded" and not model.active:
                model.counters.reloads += 1
                return True
            self._wait(client)
        return False

    def _may_begin(self, model: Model, position: object) -> bool:
        places = self.setting(model, "places")
        if not places:
            return True
        others = [each for each in self.all() if each is not model and each.state != "absent"]
        return self._places.is_turn(position) and self._places.has_room(
            places, others, self._unload_if_idle
        )

    def _begin_load(self, model: Model, name: str) -> None:
        self._set(model, "loading")
        model.loaded_as = name or model.name
        model.unload_pending = False
        self._record_memory()

    def _load_now(self, model: Model, request: Request, client: Client) -> None:
        try:
            client.wait(self.setting(model, "load_seconds"))
        except Exception:
            with self._changed:
                model.counters.cancelled_loads += 1
                self._set(model, "absent")
            raise
        model.keep_alive_seconds = request.keep_alive_seconds or DEFAULT_KEEP_ALIVE_SECONDS
        self._end_load(model, request.load_options)

    def _end_load(self, model: Model, options: dict[str, Any]) -> None:
        with self._changed:
            failure = self.load_failures.get(canonical(model.name), {"times": 0})
            if failure["times"] > 0:
                failure["times"] -= 1
                model.counters.failed_loads += 1
                self._set(model, "absent")
                raise LoadFailure(failure.get("text", "llama-server process has terminated: OK"))
            if model.state != "loading":
                raise LoadFailure("the load was cancelled")
            model.options = dict(options)
            model.loaded_at = time.monotonic()
            model.counters.loads += 1
            model.counters.load_times.append(time.monotonic())
            model.idle_since = time.monotonic()
            self._set(model, "loaded")
            self._unload_if_idle(model)

    def _set(self, model: Model, state: str) -> None:
        model.state = state
        self._changed.notify_all()

    def _wait(self, client: Client) -> None:
        self._changed.wait(_CLIENT_CHECK_SECONDS)
        if client.gone:
            raise ClientGone
