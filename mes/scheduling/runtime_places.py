"""The places of the runtime: found out where it holds fewer models than MAX_LOADED_MODELS.

Ollama reports no number, and on a GPU it depends on the models. It makes room by itself for a load,
so a model that MES has not unloaded leaves while the load of another one is under way. Two such
evictions, or one after the others have made room for a load that stalled, show how many it holds.
More are tried again after a while, which is longer each time, and when the runtime is restarted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mes.domain import LoadedModel
from mes.scheduling.memory import Memory
from mes.scheduling.registry import FoundPlaces

log = logging.getLogger(__name__)

_EVICTIONS = 2
# The loader and the leader may both see one eviction.
_SAME_EVICTION_SECONDS = 2.0
_EVICTIONS_WITHIN_SECONDS = 600.0
_FIRST_TRIAL_SECONDS = 600.0
_LONGEST_TRIAL_SECONDS = 21_600.0

_RUNTIME = "runtime"


def note_load(memory: Memory, place: str, listed: Sequence[LoadedModel], now: float) -> None:
    """Note that a load has ended, and which models the runtime lists after it.

    A model that was ready when the load began has been evicted for it, if it is not listed.
    """
    began = memory.registry.peek(place).since
    places = set(memory.places_of(listed))
    ready = [each for each in memory.registry.residents() if memory.ready(each.model)]
    had_place = {e.model for e in ready if e.ready_at is not None and e.ready_at <= began}
    if not {*had_place, place} <= places:
        note_eviction(memory, len(listed), now, is_certain=memory.stalled.get(place, False))


def note_eviction(memory: Memory, held: int, now: float, *, is_certain: bool = False) -> None:
    """Note that the runtime has evicted a model by itself, and holds `held` models after that.

    Args:
        is_certain: Whether this one shows it; otherwise it takes two.
    """
    found = memory.found_places.setdefault(_RUNTIME, FoundPlaces())
    is_the_same = found.evictions and now - found.evicted_at < _SAME_EVICTION_SECONDS
    if held >= memory.places or is_the_same:
        return
    if now - found.evicted_at > _EVICTIONS_WITHIN_SECONDS and not found.times:
        found.evictions = found.held = 0
    found.evictions += 1
    found.evicted_at, found.held = now, max(found.held, held)
    if is_certain or found.evictions >= _EVICTIONS:
        _set_limit(memory, found, now)


def _set_limit(memory: Memory, found: FoundPlaces, now: float) -> None:
    found.limit, found.times = max(1, min(found.held, memory.max_loaded - 1)), found.times + 1
    pause = min(_FIRST_TRIAL_SECONDS * 2.0 ** (found.times - 1), _LONGEST_TRIAL_SECONDS)
    found.until = now + pause
    extra = {"places": found.limit, "configured": memory.max_loaded}
    log.warning("fewer_places_found", extra=extra)


def note_held(memory: Memory, held: int) -> None:
    """Note that the runtime holds so many models together."""
    found = memory.found_places.get(_RUNTIME)
    if found is None:
        return
    if held >= memory.max_loaded:
        forget(memory)
    elif found.limit and held > found.limit:
        found.limit = held


def try_more(memory: Memory, now: float) -> None:
    """Lift the limit if it is time to try more models. A single eviction brings it back."""
    found = memory.found_places.get(_RUNTIME)
    if found is not None and found.limit and now >= found.until:
        found.limit, found.held, found.evictions = 0, 0, _EVICTIONS - 1
        log.info("more_places_tried", extra={"configured": memory.max_loaded})


def forget(memory: Memory) -> None:
    """Forget the limit: the runtime has been restarted, or holds as many models as configured."""
    if memory.found_places.pop(_RUNTIME, FoundPlaces()).limit:
        log.info("all_places_found", extra={"configured": memory.max_loaded})


def problem(memory: Memory) -> str | None:
    """Return a sentence if the runtime holds fewer models than configured."""
    if memory.places >= memory.max_loaded:
        return None
    return (
        f"the runtime holds {memory.places} of the {memory.max_loaded} models of "
        "MAX_LOADED_MODELS in memory; raise its OLLAMA_MAX_LOADED_MODELS or give it more memory, "
        f"or lower MAX_LOADED_MODELS to {memory.places}"
    )
