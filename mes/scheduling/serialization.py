"""The bytes of the shared files: lines with a sequence number and a checksum, and the state.

{"sequence":                   7,"bytes":        23,"crc32":"1c291ca3","content":{...}}
"""

from __future__ import annotations

import dataclasses
import errno
import os
import time
import zlib
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import orjson

from mes.scheduling.registry import (
    MISSING,
    READY,
    Arrivals,
    FoundPlaces,
    LoadFailure,
    ModelStatistics,
    Permit,
    Refusal,
    Resident,
    StuckRunner,
    Ticket,
)
from mes.scheduling.state import State

_HEADER = '{"sequence":%20d,"bytes":%10d,"crc32":"%08x","content":'
HEADER_BYTES = len(_HEADER % (0, 0, 0))
# The places of the numbers in it.
SEQUENCE, BYTES = slice(12, 32), slice(41, 51)
_END = b"}\n"
AROUND_BYTES = HEADER_BYTES + len(_END)
SMALLEST_HALF_BYTES = 4096
LARGEST_HALF_BYTES = 1 << 24
EMPTY = b"null"


class Entry(NamedTuple):
    """A document with its sequence number. Of two entries the newer is the larger."""

    sequence: int
    content: bytes


NOTHING = Entry(-1, EMPTY)


def encode_line(entry: Entry) -> bytes:
    """Return the line of the file that contains the entry."""
    return encode_header(entry) + entry.content + _END


def encode_header(entry: Entry) -> bytes:
    """Return the beginning of the entry's line, of HEADER_BYTES."""
    # The number counts in the checksum too: it decides which half is the newer one.
    checksum = zlib.crc32(entry.content, entry.sequence & 0xFFFFFFFF)
    return (_HEADER % (entry.sequence, len(entry.content), checksum)).encode()


def image(content: bytes) -> bytes:
    """Return the bytes of a file that contains the document."""
    half_bytes = half_bytes_for(len(content) + AROUND_BYTES)
    return encode_line(Entry(0, content)).ljust(2 * half_bytes, b"\0")


def half_bytes_for(needed: int) -> int:
    """Return the size of a half with so much room: a power of two."""
    half_bytes = max(SMALLEST_HALF_BYTES, 1 << (needed - 1).bit_length())
    if half_bytes > LARGEST_HALF_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return half_bytes


VERSION = 2
_A_DAY = 86_400.0
# Counters stay far below it; a float holds every integer up to it.
_LARGEST_NUMBER = 2**53

# Records are flat, so their fields are those of the JSON objects.
_RECORDS: dict[str, type] = {
    "permits": Permit,
    "tickets": Ticket,
    "load_failures": LoadFailure,
    "refusals": Refusal,
    "statistics": ModelStatistics,
    "stuck": StuckRunner,
    "unload_failures": LoadFailure,
    "found_places": FoundPlaces,
    "arrivals": Arrivals,
}
_PLAIN = (
    "number",
    "granted_up_to",
    "batch_boundary",
    "swap_began",
    "residency",
    "unloading",
    "preloaded",
    "aliases",
    "renewed_at",
    "stalled",
)
_KEPT = (*_PLAIN, *_RECORDS)
# Parts that a registry of an earlier release does not have.
_NEWER = (
    "stuck",
    "unload_failures",
    "aliases",
    "renewed_at",
    "found_places",
    "stalled",
    "arrivals",
)


def encode(state: State) -> bytes:
    """Return the state as a JSON object."""
    document: dict[str, Any] = {"version": VERSION, "boot": BOOT_ID}
    for name in _KEPT:
        document[name] = getattr(state, name)
    document["registry"] = state.registry.by_last_use()
    return orjson.dumps(document)


def decode(content: bytes, max_loaded: int) -> State:
    """Return the state of which `encode` has made `content`; a new one for `null`."""
    document = orjson.loads(content)
    return State(max_loaded) if document is None else _decode(_completed(document), max_loaded)


def check(content: bytes) -> None:
    """Check the content of a file that this process has not created.

    Raises:
        ValueError: `content` is not the state of this version since the machine was started.
    """
    document = orjson.loads(content)
    if document is None:
        return
    if not _has_fields(_completed(document), _fields()):
        raise ValueError("it is not a registry of this version")
    if (document["version"], document["boot"]) != (VERSION, BOOT_ID):
        raise ValueError("it is of another version, or from before the machine was restarted")
    document, latest = _completed(document), time.monotonic() + _A_DAY
    failures = (*document["load_failures"].values(), *document["unload_failures"].values())
    if any(failure["until"] > latest for failure in failures):
        raise ValueError("a model in it would cool down for more than a day")


def with_unchecked_residents(content: bytes) -> bytes:
    """Return the state for a start of the service, in which no model is known to be in memory.

    The runtime may have been restarted too. The models keep their places until the leader has
    listed those in memory; no request uses them before.
    """
    document = orjson.loads(content)
    if document is None:
        return content
    for resident in document["registry"]:
        if resident["phase"] == READY:
            resident["phase"] = MISSING
    return orjson.dumps(document)


def _completed(document: Any) -> Any:
    """Return the document with the parts that earlier releases did not write, which are empty."""
    empty: dict[str, Any] = {name: {} for name in _NEWER}
    return {**empty, **document} if isinstance(document, dict) else document


def _fields() -> dict[str, Any]:
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
    # the leader unloads the others.
    for fields in document["registry"][-max_loaded:]:
        state.registry[fields["model"]] = Resident(**fields)
    return state


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value has the type, down to the last field, with sane numbers."""
    if dataclasses.is_dataclass(hint):
        return _has_fields(value, get_type_hints(hint))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and _all_fit(value.values(), get_args(hint)[1])
    if get_origin(hint) is list:
        return isinstance(value, list) and _all_fit(value, get_args(hint)[0])
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if hint in (int, float):
        return type(value) in (int, hint) and 0 <= value < _LARGEST_NUMBER
    return type(value) is hint


def _has_fields(value: Any, hints: dict[str, Any]) -> bool:
    """Return whether the value is an object with these fields and no others."""
    named = isinstance(value, dict) and value.keys() == hints.keys()
    return named and all(_fits(value[name], hint) for name, hint in hints.items())


def _all_fit(values: Any, hint: Any) -> bool:
    return all(_fits(value, hint) for value in values)


def _boot_id() -> str:
    # Monotonic times mean nothing after a restart of the machine, nor do the workers' names.
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


BOOT_ID = _boot_id()
