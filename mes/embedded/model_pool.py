"""The models that are loaded: shared by requests, reloaded, evicted, expired.

Who waits for whom is as in Ollama: a loaded model serves at once, and whoever needs a load or an
eviction stands in one line in order of arrival, where the first holds up all behind.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mes.embedded.api_errors import Busy, EngineDied, RuntimeFailure
from mes.embedded.engine import Engine
from mes.embedded.model_store import StoredModel
from mes.embedded.options import LoadParameters, Options, fits_parameters, load_parameters
from mes.embedded.runtime_settings import EmbeddedSettings
from mes.embedded.slots import ClientConnection

BUSY = "server busy, please try again.  maximum pending requests exceeded"
LONGEST_LINE = 512
LOOK_SECONDS = 0.2
LONGEST_WAIT = threading.TIMEOUT_MAX


@dataclass(eq=False)
class PooledModel:
    """One entry of the pool, from the start of its load until its process is gone"""

    model: StoredModel
    launch: LoadParameters
    keep_alive: float
    engine: Engine | None = None
    ready: bool = False
    failure: RuntimeFailure | None = None
    users: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    leaving: bool = False
    """takes no new users, and stops when it has none"""
    stopping: bool = False

    @property
    def expires_in(self) -> float:
        """Seconds; counted from now while it is in use"""
        idle = 0.0 if self.users else time.monotonic() - self.idle_since
        return self.keep_alive - idle

    @property
    def is_idle(self) -> bool:
        return self.ready and not self.users and not self.stopping

    @property
    def is_dead(self) -> bool:
        return self.ready and not (self.engine and self.engine.alive)

    @property
    def takes_users(self) -> bool:
        return self.ready and not self.leaving and not self.is_dead


class ModelPool:
    def __init__(
        self, settings: EmbeddedSettings, make: Callable[[StoredModel, LoadParameters], Engine]
    ) -> None:
        self._settings = settings
        self._make = make
        self._loaded: dict[str, PooledModel] = {}
        self._line: list[object] = []
        # Held for decisions only. Loads and stops take their time without it.
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._expire, name="expire", daemon=True).start()

    @contextmanager
    def engine(
        self,
        model: StoredModel,
        options: Options,
        keep_alive: float | None,
        caller: ClientConnection,
    ) -> Iterator[Engine]:
        """The model's engine, loaded if need be and kept for the time of the block.

        Raises LoadFailed, Busy (no room in time) and CallerLeft.
        """
        loaded = self._enter(model, options, keep_alive, caller)
        try:
            assert loaded.engine
            yield loaded.engine
        except EngineDied:
            loaded.leaving = True
            raise
        finally:
            self._leave(loaded)

    def unload(self, model: StoredModel) -> None:
        """Returns at once; the process goes when its running requests have ended"""
        with self._changed:
            if loaded := self._loaded.get(model.name.key):
                loaded.keep_alive = 0.0
                self._retire_if_due(loaded)

    def running(self) -> list[PooledModel]:
        """Those with a process that lives, the one that stays longest first; none that loads"""
        with self._changed:
            living = [one for one in self._loaded.values() if one.ready and not one.is_dead]
        return sorted(living, key=lambda one: one.expires_in, reverse=True)

    def close(self) -> None:
        """Stop all engines, whatever they do; nothing can be loaded any more"""
        with self._changed:
            self._closed = True
            engines = [one.engine for one in self._loaded.values() if one.engine]
        for engine in engines:
            engine.stop()

    def _enter(
        self,
        model: StoredModel,
        options: Options,
        keep_alive: float | None,
        caller: ClientConnection,
    ) -> PooledModel:
        deadline = time.monotonic() + self._settings.load_deadline_seconds
        with self._changed:
            loaded = self._fitting(model, options)
            if loaded is None:
                with self._place_in_line() as is_first:
                    while not (is_first() and (loaded := self._provide(model, options))):
                        self._wait(model, deadline, caller)
            loaded.users += 1
            if keep_alive is not None:
                loaded.keep_alive = keep_alive
        return self._load(loaded) if loaded.engine is None else loaded

    @contextmanager
    def _place_in_line(self) -> Iterator[Callable[[], bool]]:
        if len(self._line) >= LONGEST_LINE:
            raise Busy(BUSY)
        place = object()
        self._line.append(place)
        try:
            yield lambda: self._line[0] is place
        finally:
            self._line.remove(place)
            self._changed.notify_all()

    def _fitting(self, model: StoredModel, options: Options) -> PooledModel | None:
        loaded = self._loaded.get(model.name.key)
        if loaded and loaded.takes_users:
            return (
                loaded if fits_parameters(loaded.launch, model, options, self._settings) else None
            )
        return None

    def _provide(self, model: StoredModel, options: Options) -> PooledModel | None:
        """The model as it is or, where there is room, about to be loaded; else a step towards it"""
        if loaded := self._fitting(model, options):
            return loaded
        if loaded := self._loaded.get(model.name.key):
            self._make_way(loaded)
            return None
        return self._reserve(model, options) if self._has_room() else None

    def _make_way(self, loaded: PooledModel) -> None:
        """What is loaded with other options, or is dead, goes as soon as nobody uses it"""
        if loaded.ready:
            loaded.leaving = True
            self._retire_if_due(loaded)

    def _has_room(self) -> bool:
        if len(self._loaded) < self._settings.max_loaded_models:
            return True
        if not any(one.stopping for one in self._loaded.values()):
            self._evict()
        return False

    def _evict(self) -> None:
        idle = [one for one in self._loaded.values() if one.is_idle]
        if idle:
            victim = min(idle, key=lambda one: one.idle_since)
            victim.leaving = True
            self._retire_if_due(victim)

    def _reserve(self, model: StoredModel, options: Options) -> PooledModel:
        launch = load_parameters(model, options, self._settings)
        loaded = PooledModel(model, launch, self._settings.keep_alive_seconds)
        self._loaded[model.name.key] = loaded
        return loaded

    def _wait(self, model: StoredModel, deadline: float, caller: ClientConnection) -> None:
        """Until something has changed; its failure, if it was for a load that failed"""
        awaited = self._loaded.get(model.name.key)
        self._changed.wait(LOOK_SECONDS)
        if awaited and awaited.failure:
            raise awaited.failure
        if time.monotonic() > deadline:
            raise Busy(BUSY)
        caller.check()

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
        # With the lock, so that `close` misses no process.
        with self._changed:
            if self._closed:
                raise Busy(BUSY)
            loaded.engine = self._make(loaded.model, loaded.launch)
            return loaded.engine

    def _leave(self, loaded: PooledModel) -> None:
        with self._changed:
            loaded.users -= 1
            loaded.idle_since = time.monotonic()
            self._retire_if_due(loaded)
            self._changed.notify_all()

    def _retire_if_due(self, loaded: PooledModel) -> None:
        if loaded.is_idle and (loaded.leaving or loaded.expires_in <= 0):
            loaded.stopping = loaded.leaving = True
            threading.Thread(target=self._stop, args=(loaded,), daemon=True).start()

    def _stop(self, loaded: PooledModel) -> None:
        if loaded.engine:
            loaded.engine.stop()
        with self._changed:
            self._loaded.pop(loaded.model.name.key, None)
            self._changed.notify_all()

    def _expire(self) -> None:
        with self._changed:
            while not self._closed:
                for loaded in list(self._loaded.values()):
                    self._retire_if_due(loaded)
                self._changed.wait(self._next_expiry())

    def _next_expiry(self) -> float:
        idle = [one.expires_in for one in self._loaded.values() if one.is_idle]
        return min(max(0.0, min(idle, default=math.inf)), LONGEST_WAIT)
