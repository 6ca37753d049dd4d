"""The catalog: which models may be run, and how; read from config/models.json."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from mes import catalog_schema, strictjson
from mes.domain import ModelSpec, normalise
from mes.errors import Mistake, ModelNotFound

log = logging.getLogger(__name__)

# What holds where neither the model nor the file's defaults say otherwise.
_DEFAULTS = {
    "enabled": True,
    "preload": False,
    "pinned": False,
    "max_concurrent": 1,
    "max_queue": 64,
    "max_tokens": 1000,
    "temperature": 0.7,
    "supports_json_mode": True,
    "max_attempts": 2,
}


class CatalogError(ValueError):
    """The catalog does not hold; the text has one line a mistake: where, problem, remedy."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        lines = [f"{path}: {each.pointer or '/'}: {each.detail}" for each in mistakes]
        super().__init__("\n".join(lines))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, eq=False)
class Catalog:
    """The configured models, those that are switched off included."""

    models: tuple[ModelSpec, ...]

    @cached_property
    def enabled(self) -> tuple[ModelSpec, ...]:
        return tuple(spec for spec in self.models if spec.enabled)

    @cached_property
    def capacity(self) -> int:
        """How many requests may run or wait at a time, over all models."""
        return sum(spec.capacity for spec in self.enabled)

    def get(self, model_id: str) -> ModelSpec:
        """The model that may be run under this id. Raises ModelNotFound."""
        spec = self._by_id.get(normalise(model_id))
        if spec is None:
            raise ModelNotFound(f"the model {_shown(model_id)} is not configured; {self._offer}")
        if not spec.enabled:
            raise ModelNotFound(f"the model {_shown(model_id)} is disabled; {self._offer}")
        return spec

    def by_tag(self, name: str) -> ModelSpec | None:
        """The model that the runtime knows by this name, also where it is disabled."""
        return self._by_tag.get(normalise(name))

    @cached_property
    def _by_id(self) -> dict[str, ModelSpec]:
        return {normalise(spec.id): spec for spec in self.models}

    @cached_property
    def _by_tag(self) -> dict[str, ModelSpec]:
        return {spec.tag: spec for spec in self.models}

    @cached_property
    def _offer(self) -> str:
        ids = [spec.id for spec in self.enabled]
        some = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        return f"there are: {some}" if ids else "no model is enabled"


def _shown(model_id: str) -> str:
    return ascii(model_id if len(model_id) <= 80 else f"{model_id[:80]}...")


def parse(text: str | bytes, *, path: Path, default_timeout_seconds: float) -> Catalog:
    """The catalog in a file's text. Raises CatalogError, which tells all mistakes at once."""
    document = _json(text, path)
    try:
        loaded = catalog_schema.CatalogSchema().load(document)
    except ValidationError as exc:
        raise CatalogError(path, catalog_schema.mistakes(exc.normalized_messages())) from exc
    defaults = {"timeout": float(default_timeout_seconds), **_given(loaded["defaults"])}
    return Catalog(tuple(_spec(each, entry, defaults) for each, entry in loaded["models"].items()))


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return strictjson.parse(text)
    except strictjson.NotJson as exc:
        raise CatalogError(path, [Mistake("", f"is not JSON: {exc}; mend it")]) from exc


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _spec(model_id: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> ModelSpec:
    said = {**_DEFAULTS, **_with_window(defaults), **_with_window(entry)}
    said["options"] = {**defaults.get("options", {}), **entry.get("options", {})}
    said["options"].pop("num_ctx", None)
    said["tag"] = normalise(said.pop("ollama_tag", model_id))
    said["timeout_seconds"] = said.pop("timeout")
    said["temperature"] = said.pop("default_temperature", said["temperature"])
    said.setdefault("display_name", model_id)
    return ModelSpec(id=model_id, **said)


def _with_window(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is said here, with `num_ctx` under its other name: a model has one window."""
    num_ctx = entry.get("options", {}).get("num_ctx")
    return _given({"context_window": num_ctx, **_given(entry)})


@dataclass(frozen=True)
class _Reading:
    """What the last look at the file gave; replaced whole, so that readers need no lock."""

    stamp: tuple[int, ...]
    catalog: Catalog | None
    problem: str | None = None


class CatalogFile:
    """The catalog as the file has it now; a broken edit leaves the last good one in force.

    An edit shows at most `look_every_seconds` later. A copy of the last good one is kept as
    `last_good`, so that all processes fall back on the same. Thread-safe.
    """

    def __init__(
        self,
        path: str | Path,
        default_timeout_seconds: float,
        look_every_seconds: float = 0.0,
        last_good: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._last_good = last_good
        self._default_timeout_seconds = default_timeout_seconds
        self._look_every_seconds = look_every_seconds
        self._next_look = 0.0
        self._reading = _Reading(stamp=(-1,), catalog=None)
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """What is wrong with the file since its last edit, if anything."""
        self.current()  # whoever asks may be the first to look since that edit
        return self._reading.problem

    def current(self) -> Catalog:
        """The catalog. Raises CatalogError only while there never was a good one."""
        reading, now = self._reading, time.monotonic()
        if reading.catalog is None or now >= self._next_look:
            self._next_look = now + self._look_every_seconds
            with self._lock:
                reading = self._reread()
        assert reading.catalog is not None
        return reading.catalog

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError:
            return (0,)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _reread(self) -> _Reading:
        # Before reading: an edit in between is then seen at the next look.
        stamp = self._stamp()
        if stamp != self._reading.stamp:
            self._reading = self._read(stamp)
        return self._reading

    def _read(self, stamp: tuple[int, ...]) -> _Reading:
        try:
            text = self._text()
            catalog = self._parse(text)
        except CatalogError as exc:
            # Ours may be older than the kept one: this process need not have seen every edit.
            good = self._recalled() or self._reading.catalog
            if good is None:
                raise
            log.error("catalog_broken", extra={"path": str(self.path), "problem": str(exc)})
            return _Reading(stamp, good, str(exc))
        self._remember(text)
        log.info("catalog_read", extra={"path": str(self.path), "models": len(catalog.models)})
        return _Reading(stamp, catalog)

    def _text(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as exc:
            told = Mistake("", f"cannot be read ({exc.strerror}); see MODELS_CONFIG_PATH")
            raise CatalogError(self.path, [told]) from exc

    def _parse(self, text: bytes) -> Catalog:
        return parse(text, path=self.path, default_timeout_seconds=self._default_timeout_seconds)

    def _recalled(self) -> Catalog | None:
        try:
            return None if self._last_good is None else self._parse(self._last_good.read_bytes())
        except (OSError, CatalogError):
            return None

    def _remember(self, text: bytes) -> None:
        if self._last_good is None:
            return
        draft = self._last_good.with_suffix(f".{os.getpid()}")
        try:
            self._last_good.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(text)
            os.replace(draft, self._last_good)
        except OSError as exc:
            # It only matters once an edit is broken.
            log.warning("catalog_not_kept", extra={"reason": str(exc)})
