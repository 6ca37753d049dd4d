"""The records of the shared state: what tickets, permits and the rest say; flat, as in the file."""

from __future__ import annotations

from dataclasses import dataclass

# What a ticket waits for.
PERMIT = "permit"
LOAD = "load"
UNLOAD = "unload"


@dataclass(slots=True)
class Ticket:
    """A place in the queue. With a duty it has work to do there and then: a load or an unload."""

    id: str
    worker: str
    model: str
    wants: str
    arrived_at: float
    number: int
    request: str = ""
    duty: str | None = None
    victim: str | None = None
    overtaken_at: float | None = None


@dataclass(slots=True)
class Permit:
    """The right to use a model now."""

    id: str
    worker: str
    model: str
    arrived_at: float
    granted_at: float
    load_seconds: float


@dataclass(slots=True)
class Trouble:
    """Why a model cannot be used for now."""

    failures: int
    until: float
    detail: str


@dataclass(slots=True)
class Refusal:
    """The word a waiting ticket gets instead of a permit; `code` is that of an error."""

    worker: str
    code: str
    detail: str
    retry_after: float | None = None


@dataclass(slots=True)
class Tally:
    """What has happened to a model since this state began.

    `load_seconds` and `use_seconds` (for how long a permit is held) are moving averages; the size
    is what the runtime last said that the model takes up.
    """

    loads: int = 0
    evictions: int = 0
    load_seconds: float | None = None
    use_seconds: float | None = None
    size_bytes: int = 0
