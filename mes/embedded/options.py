"""Ollama's `options`, checked as Ollama checks them, in the words of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mes.embedded.api_errors import RuntimeFailure
from mes.embedded.model_store import StoredModel
from mes.embedded.runtime_settings import EmbeddedSettings

# Ollama's defaults; the engine's own differ.
SAMPLING: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
    "num_keep": 4,
    "num_predict": -1,
}
LOADING = {"num_ctx": int, "num_batch": int, "num_thread": int}
# Nothing to place on a GPU here, and nothing of it changes an answer.
WITHOUT_EFFECT = {"num_gpu": int, "main_gpu": int, "use_mmap": bool, "draft_num_predict": int}
ENGINE_NAMES = {"num_predict": "n_predict", "num_keep": "n_keep"}
TYPE_NAMES = {int: "integer", float: "float32", bool: "boolean"}


class BadOption(RuntimeFailure):
    """A status of 500 for the client's mistake, because Ollama has it so"""


@dataclass(frozen=True)
class Options:
    sampling: dict[str, Any]
    """for the engine, complete"""
    context_length: int | None = None
    batch: int | None = None
    threads: int | None = None


def parse_options(given: Any) -> Options:
    """Unknown names are ignored, as Ollama ignores them; a wrong type is a BadOption"""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadOption("options must be an object")
    checked = {name: _checked(name, value) for name, value in given.items() if value is not None}
    sampling = {name: checked.get(name, default) for name, default in SAMPLING.items()}
    if sampling["num_predict"] <= 0:
        sampling["num_predict"] = -1  # until the context is full
    fields = {ENGINE_NAMES.get(name, name): value for name, value in sampling.items()}
    return Options(
        {**fields, "stop": checked.get("stop", [])},
        context_length=_positive(checked.get("num_ctx")),
        batch=_positive(checked.get("num_batch")),
        threads=_positive(checked.get("num_thread")),
    )


def _checked(name: str, value: Any) -> Any:
    if name == "stop":
        return _strings(name, value)
    kind = _kind(name)
    if kind is None:
        return value
    fits = isinstance(value, bool) if kind is bool else _is_number(value)
    if not fits:
        raise BadOption(f'option "{name}" must be of type {TYPE_NAMES[kind]}')
    return kind(value)


def _kind(name: str) -> type | None:
    if name in SAMPLING:
        return type(SAMPLING[name])
    return LOADING.get(name) or WITHOUT_EFFECT.get(name)


def _positive(number: int | None) -> int | None:
    """0 and less leave the choice to us"""
    return number if number and number > 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise BadOption(f'option "{name}" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise BadOption(f'option "{name}" must be of an array of strings')
    return value


# What a model is loaded with, decided from the request, the settings and the model's limits.

# Small, because nothing can be cancelled, and no other slot gets a token, before a batch is read;
# prompts are read no slower than in batches of 512.
BATCH = 64
SMALLEST_CONTEXT = 4


@dataclass(frozen=True)
class LoadParameters:
    context_length: int
    """of each slot"""
    batch: int
    threads: int
    slots: int


def load_parameters(
    model: StoredModel, options: Options, settings: EmbeddedSettings
) -> LoadParameters:
    context = _context_length(model, options.context_length or settings.context_length)
    threads = options.threads or settings.engine_threads
    if model.header.is_embedding:
        # A text to embed is read in one piece.
        return LoadParameters(context, batch=context, threads=threads, slots=1)
    slots = settings.num_parallel
    return LoadParameters(
        context, batch=max(options.batch or BATCH, slots), threads=threads, slots=slots
    )


def fits_parameters(
    launch: LoadParameters, model: StoredModel, options: Options, settings: EmbeddedSettings
) -> bool:
    """Whether a request with these options can use what is loaded; what it leaves open, fits"""
    as_loaded = replace(
        options,
        context_length=options.context_length or launch.context_length,
        batch=options.batch or launch.batch,
        threads=options.threads or launch.threads,
    )
    return load_parameters(model, as_loaded, settings) == launch


def _context_length(model: StoredModel, wanted: int) -> int:
    """Never more than the model was trained for, as under Ollama"""
    return max(SMALLEST_CONTEXT, min(wanted, model.header.context_length or wanted))
