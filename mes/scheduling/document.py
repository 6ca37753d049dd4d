"""The document: the shared state as bytes, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_type_hints

import orjson

from mes.scheduling.records import Permit, Refusal, Tally, Ticket, Trouble
from mes.scheduling.registry import Resident
from mes.scheduling.shape import has_fields
from mes.scheduling.state import State

VERSION = 1
_A_DAY = 86_400.0

# Records are flat, so their fields are the document's.
_RECORDS: dict[str, type] = {
    "permits": Permit,
    "tickets": Ticket,
    "troubles": Trouble,
    "refusals": Refusal,
    "tallies": Tally,
}
_PLAIN = (
    "number",
    "granted_up_to",
    "closed_at",
    "swap_began",
    "residency",
    "leaving",
    "preloaded",
)

_KEPT = (*_PLAIN, *_RECORDS)


def encode(state: State) -> bytes:
    """The document as it stands in the memory that the workers share."""
    document: dict[str, Any] = {"version": VERSION, "boot": BOOT}
    for name in _KEPT:
        document[name] = getattr(state, name)
    document["registry"] = state.registry.by_last_use()
    return orjson.dumps(document)


def decode(content: bytes, max_loaded: int) -> State:
    """Read what `encode` has written."""
    return _decode(orjson.loads(content), max_loaded)


def decode_foreign(content: bytes, max_loaded: int) -> State:
    """Read what may be of any kind. Raises ValueError where it is none of ours."""
    document = orjson.loads(content)
    if not has_fields(document, _shape()):
        raise ValueError("not a registry document of this version")
    if (document["version"], document["boot"]) != (VERSION, BOOT):
        raise ValueError("written by another version, or before the machine was restarted")
    if any(
        trouble["until"] > time.monotonic() + _A_DAY for trouble in document["troubles"].values()
    ):
        raise ValueError("a model that would cool down for more than a day")
    return _decode(document, max_loaded)


def _shape() -> dict[str, Any]:
    hints = get_type_hints(State)
    kept = {name: hints[name] for name in _KEPT}
    return {"version": int, "boot": str, **kept, "registry": list[Resident]}


def _decode(document: dict[str, Any], max_loaded: int) -> State:
    state = State(max_loaded)
    for name in _PLAIN:
        setattr(state, name, document[name])
    for name, record in _RECORDS.items():
        setattr(state, name, {key: record(**fields) for key, fields in document[name].items()})
    # With a smaller MAX_LOADED_MODELS than before, the most recently used keep their places;
    # the keeper sees the others out of the runtime.
    for fields in document["registry"][-max_loaded:]:
        state.registry[fields["model"]] = Resident(**fields)
    return state


def _boot_id() -> str:
    # Monotonic times mean nothing after a restart of the machine, nor do the workers' names.
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


BOOT = _boot_id()

# What is shared has a meaning for this version of the document, until the machine restarts.
ERA = f"{VERSION}-{BOOT}"
