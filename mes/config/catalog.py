"""The catalog: the models that may be run and their options, from config/models.json."""

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

# The values if neither the model nor the file's defaults set them.
_DEFAULTS = {
    "enabled": True,
    "preload": False,
    "pinned": False,
    "max_concurrent": 1,
    "max_queue": 512,
    "max_tokens": 1000,
    "temperature": 0.7,
    "supports_json_mode": True,
    "max_attempts": 2,
}


class CatalogError(FileError):
    """The catalog is invalid or cannot be read."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """All configured models, including those that are disabled."""

    models: tuple[ModelSpec, ...]

    @cached_property
    def enabled(self) -> tuple[ModelSpec, ...]:
        """The models that may be run."""
        return tuple(spec for spec in self.models if spec.enabled)

    @cached_property
    def capacity(self) -> int:
        """The most requests that may run or wait at a time, for all models together."""
        return sum(spec.capacity for spec in self.enabled)

    def get(self, model_id: str) -> ModelSpec:
        """Return the enabled model with this id.

        Raises ModelNotFound.
        """
        spec = self._by_id.get(model_id) or self._by_id.get(normalise(model_id))
        if spec is None:
            raise ModelNotFound(
                f"the model {_quote(model_id)} is not configured; {self._alternatives}"
            )
        if not spec.enabled:
            raise ModelNotFound(f"the model {_quote(model_id)} is disabled; {self._alternatives}")
        return spec

    def by_tag(self, name: str) -> ModelSpec | None:
        """Return the model with this name in the runtime, enabled or not; None if there is none."""
        return self._by_tag.get(normalise(name))

    @cached_property
    def _by_id(self) -> dict[str, ModelSpec]:
        as_written = {spec.id: spec for spec in self.models}
        return as_written | {normalise(spec.id): spec for spec in self.models}

    @cached_property
    def _by_tag(self) -> dict[str, ModelSpec]:
        return {spec.tag: spec for spec in self.models}

    @cached_property
    def _alternatives(self) -> str:
        ids = [spec.id for spec in self.enabled]
        listed = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        return f"available models: {listed}" if ids else "no model is enabled"


def _quote(model_id: str) -> str:
    return ascii(model_id if len(model_id) <= 80 else f"{model_id[:80]}...")


def parse_catalog(text: str | bytes, *, path: Path, default_timeout_seconds: float) -> Catalog:
    """Return the catalog in a file's text; `path` appears in the error.

    Raises CatalogError, which lists all mistakes.
    """
    try:
        loaded = catalog_schema.CatalogSchema().load(strict_json.parse_json(text))
    except strict_json.NotJson as exc:
        raise CatalogError(path, [Mistake("", f"is not JSON: {exc}; correct it")]) from exc
    except ValidationError as exc:
        raise CatalogError(path, catalog_schema.catalog_mistakes(exc.messages_dict)) from exc
    defaults = {"timeout": float(default_timeout_seconds), **_without_null(loaded["defaults"])}
    return Catalog(tuple(_spec(name, entry, defaults) for name, entry in loaded["models"].items()))


def _without_null(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _spec(model_id: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> ModelSpec:
    """Return the model, with the defaults of the file and of MES for the fields it does not set."""
    values = {**_DEFAULTS, **_with_context_window(defaults), **_with_context_window(entry)}
    values["options"] = {**defaults.get("options", {}), **entry.get("options", {})}
    values["options"].pop("num_ctx", None)
    values["tag"] = normalise(values.pop("ollama_tag", model_id))
    values["timeout_seconds"] = values.pop("timeout")
    if _without_null(entry).get("timeout"):
        values["timeout_setting"] = "timeout of the model in the catalog"
    values["temperature"] = values.pop("default_temperature", values["temperature"])
    values.setdefault("display_name", model_id)
    return ModelSpec(id=model_id, **values)


def _with_context_window(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are set, with the option `num_ctx` as `context_window`."""
    num_ctx = entry.get("options", {}).get("num_ctx")
    return _without_null({"context_window": num_ctx, **_without_null(entry)})


class CatalogFile(ReloadingFile[Catalog]):
    """The file of the catalog (MODELS_CONFIG_PATH), read again when it changes."""

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
        return parse_catalog(
            text, path=self.path, default_timeout_seconds=self._default_timeout_seconds
        )
