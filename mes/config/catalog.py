"""The catalog: which models may be run, and how; read from config/models.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from mes import strict_json
from mes.config import catalog_schema
from mes.config.reloading_file import FileError, ReloadingFile
from mes.domain import ModelSpec, normalise
from mes.errors import Mistake, ModelNotFound

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


class CatalogError(FileError):
    """The catalog does not hold."""


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
        raise CatalogError(path, catalog_schema.catalog_mistakes(exc.messages_dict)) from exc
    defaults = {"timeout": float(default_timeout_seconds), **_given(loaded["defaults"])}
    return Catalog(tuple(_spec(each, entry, defaults) for each, entry in loaded["models"].items()))


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return strict_json.parse_json(text)
    except strict_json.NotJson as exc:
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


class CatalogFile(ReloadingFile[Catalog]):
    """The catalog as the file has it now; see RereadFile."""

    noun = "catalog"
    setting = "MODELS_CONFIG_PATH"
    error = CatalogError

    def __init__(
        self,
        path: str | Path,
        default_timeout_seconds: float,
        check_interval_seconds: float = 0.0,
        last_good_path: Path | None = None,
    ) -> None:
        super().__init__(path, check_interval_seconds, last_good_path)
        self._default_timeout_seconds = default_timeout_seconds

    def parse(self, text: bytes) -> Catalog:
        """The catalog in a text. Raises CatalogError, which tells all mistakes at once."""
        return parse(text, path=self.path, default_timeout_seconds=self._default_timeout_seconds)
