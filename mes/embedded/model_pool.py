"""The pool of loaded models: loads, shares, reloads, evicts and expires them.

The order is that of Ollama: a request for a loaded model is served at once. Requests that need a
load or an eviction wait in one queue in order of arrival, and only the first of them is served.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mes.embedded.api_errors import Busy, EngineDied, RuntimeFailure
from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine
from mes.embedded.model_store import StoredModel
from mes.embedded.options import LoadParameters, Options, fits_parameters, load_parameters
from mes.embedded.runtime_settings import EmbeddedSettings

BUSY = "server busy, please try again.  maximum pending requests exceeded"
LONGEST_QUEUE = 512
CLIENT_CHECK_SECONDS = 0.2
LONGEST_WAIT = threading.TIMEOUT_MAX


@dataclass(eq=False)
class PooledModel:
    """An entry of the pool, from the start of its load until its process is gone."""

    model: StoredModel
    launch: LoadParameters
    keep_alive: float
    engine: Engine | None = None
    ready: bool = False
    failure: RuntimeFailure | None = None
    active_requests: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    draining: bool = False
    """Accepts no new requests, and is stopped when the active ones have ended."""
    stopping: bool = False

    @property
    def expires_in(self) -> float:
        """Seconds until the model expires, if its active requests ended now."""
        idle = 0.0 if self.active_requests else time.monotonic() - self.idle_since
        return self.keep_alive - idle

    @property
    def is_idle(self) -> bool:
        return self.ready and not self.active_requests and not self.stopping

    @property
    def is_dead(self) -> bool:
        return self.ready and not (self.engine and self.engine.alive)

    @property
    def accepts_requests(self) -> bool:
        return self.ready and not self.draining and not self.is_dead


class ModelPool:
    """The loaded models, at most `max_loaded_models`. Thread-safe."""

    def __init__(
        self,
        settings: EmbeddedSettings,
        create_engine: Callable[[StoredModel, LoadParameters], Engine],
    ) -> None:
        self._settings = settings
        self._create_engine = create_engine
        self._models: dict[str, PooledModel] = {}
        self._queue: list[object] = []
        # Held for decisions only: loading and stopping an engine take place outside it.
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._expire, name="expire", daemon=True).start()

    @contextmanager
    def engine(
        self,
        model: StoredModel,
        options: Options,
        keep_alive: float | None,
        client: ClientConnection,
    ) -> Iterator[Engine]:
        """Load the model if needed and keep its engine for the block.

        `keep_alive` is in seconds; None keeps the model's own.

        Raises:
            EngineLoadFailed: the model could not be loaded.
            Busy: the queue is full, or there was no room within the load timeout.
            ClientLeft: the client left while it waited.
        """
        loaded = self._acquire(model, options, keep_alive, client)
        try:
            assert loaded.engine
            yield loaded.engine
        except EngineDied:
            loaded.draining = True
            raise
        finally:
            self._release(loaded)

    def unload(self, model: StoredModel) -> None:
        """Begin to unload the model and return; it goes when its active requests have ended."""
        with self._changed:
            if loaded := self._models.get(model.name.key):
                loaded.keep_alive = 0.0
                self._stop_if_due(loaded)

    def running(self) -> list[PooledModel]:
        """Return the loaded models whose process is alive, the last to expire first."""
        with self._changed:
            models = list(self._models.values())
        running = [loaded for loaded in models if loaded.ready and not loaded.is_dead]
        return sorted(running, key=lambda loaded: loaded.expires_in, reverse=True)

    def close(self) -> None:
        """Stop all engines, with their requests, and refuse further loads."""
        with self._changed:
            self._closed = True
            engines = [loaded.engine for loaded in self._models.values() if loaded.engine]
        for engine in engines:
            engine.stop()

    def _acquire(
        self,
        model: StoredModel,
        options: Options,
        keep_alive: float | None,
        client: ClientConnection,
    ) -> PooledModel:
        deadline = time.monotonic() + self._settings.load_deadline_seconds
        with self._changed:
            loaded = self._find_usable(model, options)
            if loaded is None:
                with self._queued() as is_first:
                    while not (is_first() and (loaded := self._find_or_reserve(model, options))):
                        self._wait_for_change(model, deadline, client)
            loaded.active_requests += 1
            if keep_alive is not None:
                loaded.keep_alive = keep_alive
        return self._load(loaded) if loaded.engine is None else loaded

    @contextmanager
    def _queued(self) -> Iterator[Callable[[], bool]]:
        if len(self._queue) >= LONGEST_QUEUE:
            raise Busy(BUSY)
        place = object()
        self._queue.append(place)
        try:
            yield lambda: self._queue[0] is place
        finally:
            self._queue.remove(place)
            self._changed.notify_all()

    def _find_usable(self, model: StoredModel, options: Options) -> PooledModel | None:
        loaded = self._models.get(model.name.key)
        if not loaded or not loaded.accepts_requests:
            return None
        # A file that was replaced since is loaded, like other parameters.
        is_same = loaded.model.digest == model.digest
        fits = is_same and fits_parameters(loaded.launch, model, options, self._settings)
        return loaded if fits else None

    def _find_or_reserve(self, model: StoredModel, options: Options) -> PooledModel | None:
        """Return the loaded model or, if there is room, a new entry that is yet to be loaded.

        Otherwise begin to make room and return None.
        """
        if loaded := self._find_usable(model, options):
            return loaded
        if loaded := self._models.get(model.name.key):
            self._drain(loaded)
            return None
        return self._reserve(model, options) if self._has_room() else None

    def _drain(self, loaded: PooledModel) -> None:
        # A model that still loads is left alone; the next change decides anew.
        if loaded.ready:
            loaded.draining = True
            self._stop_if_due(loaded)

    def _has_room(self) -> bool:
        if len(self._models) < self._settings.max_loaded_models:
            return True
        if not any(loaded.stopping for loaded in self._models.values()):
            self._evict()
        return False

    def _evict(self) -> None:
        idle = [loaded for loaded in self._models.values() if loaded.is_idle]
        if idle:
            self._drain(min(idle, key=lambda loaded: loaded.idle_since))

    def _reserve(self, model: StoredModel, options: Options) -> PooledModel:
        launch = load_parameters(model, options, self._settings)
        loaded = PooledModel(model, launch, self._settings.keep_alive_seconds)
        self._models[model.name.key] = loaded
        return loaded

    def _wait_for_change(
        self, model: StoredModel, deadline: float, client: ClientConnection
    ) -> None:
        """Wait until the pool has changed. Raise the failure of a load of `model` meanwhile."""
        awaited = self._models.get(model.name.key)
        self._changed.wait(CLIENT_CHECK_SECONDS)
        if awaited and awaited.failure:
            raise awaited.failure
        if time.monotonic() > deadline:
            raise Busy(BUSY)
        client.check()

    def _load(self, loaded: PooledModel) -> PooledModel:
        try:
            self._spawn(loaded).load(self._settings.load_deadline_seconds)
        except BaseException as exc:
            loaded.failure = exc if isinstance(exc, RuntimeFailure) else RuntimeFailure(str(exc))
            self._stop(loaded)
            raise
        with self._changed:
            loaded.ready = True
            self._changed.notify_all()
        return loaded

    def _spawn(self, loaded: PooledModel) -> Engine:
        # Under the lock, so that `close` stops every process.
        with self._changed:
            if self._closed:
                raise Busy(BUSY)
            loaded.engine = self._create_engine(loaded.model, loaded.launch)
            return loaded.engine

    def _release(self, loaded: PooledModel) -> None:
        with self._changed:
            loaded.active_requests -= 1
            loaded.idle_since = time.monotonic()
            self._stop_if_due(loaded)
            self._changed.notify_all()

    def _stop_if_due(self, loaded: PooledModel) -> None:
        if loaded.is_idle and (loaded.draining or loaded.expires_in <= 0):
            loaded.stopping = loaded.draining = True
            threading.Thread(target=self._stop, args=(loaded,), daemon=True).start()

    def _stop(self, loaded: PooledModel) -> None:
        if loaded.engine:
            loaded.engine.stop()
        with self._changed:
            self._models.pop(loaded.model.name.key, None)
            self._changed.notify_all()

    def _expire(self) -> None:
        with self._changed:
            while not self._closed:
                for loaded in list(self._models.values()):
                    self._stop_if_due(loaded)
                self._changed.wait(self._seconds_to_next_expiry())

    def _seconds_to_next_expiry(self) -> float:
        idle = [loaded.expires_in for loaded in self._models.values() if loaded.is_idle]
        return min(max(0.0, min(idle, default=math.inf)), LONGEST_WAIT)
