"""Ollama's `options`: sampling parameters for the engine, and parameters of the load."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from mes.embedded.api_errors import RuntimeFailure
from mes.embedded.model_store import StoredModel
from mes.embedded.runtime_settings import EmbeddedSettings

# Ollama's defaults, which differ from those of the engine.
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
    # Not an option of Ollama: the answer ends only at the limit of tokens or at a stop string.
    "ignore_eos": False,
}
LOAD_TYPES = {"num_ctx": int, "num_batch": int, "num_thread": int}
# Only their type is checked: there is no GPU here, and none of them changes an answer.
IGNORED = {"num_gpu": int, "main_gpu": int, "use_mmap": bool, "draft_num_predict": int}
ENGINE_NAMES = {"num_predict": "n_predict", "num_keep": "n_keep"}
TYPE_NAMES = {int: "integer", float: "float32", bool: "boolean"}
# Requests cannot be cancelled, and other slots get no token, until a batch is processed. Prompts
# are read no slower than in batches of 512.
BATCH = 64
SMALLEST_CONTEXT = 4


class BadOption(RuntimeFailure):
    """An option has the wrong type; like Ollama, answered with status 500."""


@dataclass(frozen=True)
class Options:
    """Options of a request; None for a parameter of the load that it leaves open."""

    sampling: dict[str, Any]
    """Sampling parameters by the engine's names, complete with defaults."""
    context_length: int | None = None
    batch: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class LoadParameters:
    """Parameters that a model is loaded with."""

    context_length: int
    """Tokens of each slot."""
    batch: int
    threads: int
    slots: int
    request_memory_bytes: int = 0
    """Memory that requests may take beyond that of the load; 0 for no limit."""
    compile_timeout_seconds: float = math.inf
    """Limit for the compilation of a grammar, and for a chat template."""
    prompt_cache: bool = False
    """Whether a request takes over what the engine has computed for the beginning of its prompt."""


def parse_options(value: Any) -> Options:
    """Return the options of a request; unknown names are ignored, as in Ollama.

    Raise `BadOption` for a value of the wrong type.
    """
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise BadOption("options must be an object")
    checked = {name: _checked(name, item) for name, item in value.items() if item is not None}
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


def load_parameters(
    model: StoredModel, options: Options, settings: EmbeddedSettings
) -> LoadParameters:
    """Return the parameters to load `model` with, from the request's options and the settings."""
    context = _context_length(model, options.context_length or settings.context_length)
    threads = options.threads or settings.engine_threads
    memory = settings.request_memory_mib << 20
    if model.header.is_embedding:
        # The engine reads a text to embed in one batch.
        return LoadParameters(context, context, threads, 1, request_memory_bytes=memory)
    slots = settings.num_parallel
    return LoadParameters(
        context_length=context,
        batch=max(options.batch or BATCH, slots),
        threads=threads,
        slots=slots,
        request_memory_bytes=memory,
        compile_timeout_seconds=settings.compile_timeout_seconds or math.inf,
        prompt_cache=settings.prompt_cache,
    )


def fits_parameters(
    launch: LoadParameters, model: StoredModel, options: Options, settings: EmbeddedSettings
) -> bool:
    """Return whether a model loaded with `launch` can serve a request with these options.

    A parameter that the options leave open fits any value.
    """
    as_loaded = replace(
        options,
        context_length=options.context_length or launch.context_length,
        batch=options.batch or launch.batch,
        threads=options.threads or launch.threads,
    )
    return load_parameters(model, as_loaded, settings) == launch


def _context_length(model: StoredModel, requested: int) -> int:
    # As in Ollama, the context is limited to the one that the model was trained for.
    return max(SMALLEST_CONTEXT, min(requested, model.header.context_length or requested))


def _checked(name: str, value: Any) -> Any:
    if name == "stop":
        return _checked_strings(name, value)
    kind = _kind(name)
    if kind is None:
        return value
    is_valid = isinstance(value, bool) if kind is bool else _is_number(value)
    if not is_valid:
        raise BadOption(f'option "{name}" must be of type {TYPE_NAMES[kind]}')
    return kind(value)


def _kind(name: str) -> type | None:
    if name in SAMPLING:
        return type(SAMPLING[name])
    return LOAD_TYPES.get(name) or IGNORED.get(name)


def _positive(number: int | None) -> int | None:
    # Zero and negative numbers leave the choice to the settings.
    return number if number and number > 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise BadOption(f'option "{name}" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise BadOption(f'option "{name}" must be of an array of strings')
    return value
