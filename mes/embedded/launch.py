"""What a model is loaded with, decided from the request, the settings and the model's limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .options import Options
from .settings import Settings
from .store import Model

# Small, because nothing can be cancelled, and no other slot gets a token, before a batch is read;
# prompts are read no slower than in batches of 512.
BATCH = 64
SMALLEST_CONTEXT = 4


@dataclass(frozen=True)
class Launch:
    context_length: int
    """of each slot"""
    batch: int
    threads: int
    slots: int


def decide(model: Model, options: Options, settings: Settings) -> Launch:
    context = _context(model, options.context_length or settings.context_length)
    threads = options.threads or settings.engine_threads
    if model.header.is_embedding:
        # A text to embed is read in one piece.
        return Launch(context, batch=context, threads=threads, slots=1)
    slots = settings.num_parallel
    return Launch(context, batch=max(options.batch or BATCH, slots), threads=threads, slots=slots)


def fits(launch: Launch, model: Model, options: Options, settings: Settings) -> bool:
    """Whether a request with these options can use what is loaded; what it leaves open, fits"""
    as_loaded = replace(
        options,
        context_length=options.context_length or launch.context_length,
        batch=options.batch or launch.batch,
        threads=options.threads or launch.threads,
    )
    return decide(model, as_loaded, settings) == launch


def _context(model: Model, wanted: int) -> int:
    """Never more than the model was trained for, as under Ollama"""
    return max(SMALLEST_CONTEXT, min(wanted, model.header.context_length or wanted))
