"""One thing that goes wrong: how it is provoked, and what its client must see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.client import Client, Heard


@dataclass(frozen=True)
class Expected:
    """What the client must see; a code of None is that of a success."""

    status: int
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    also: Callable[[Heard], bool] = lambda heard: True
    within_seconds: float = 20.0

    def assert_met_by(self, heard: Heard) -> None:
        assert heard.outcome == (self.status, self.code), heard.body[:300]
        # The head of a stream was sent before anything went wrong.
        assert heard.streamed or self.headers.items() <= heard.headers.items()
        assert self.also(heard), heard.body[:300]
        assert heard.seconds < self.within_seconds
        if heard.streamed:
            assert _ends(heard) == [heard.lines[-1]["type"]]
        if heard.status >= 400:
            assert heard.headers["content-type"] == "application/problem+json"


def _ends(heard: Heard) -> list[str]:
    """The lines that end a stream; a good one has one, and nothing after it."""
    return [each["type"] for each in heard.lines if each["type"] in ("result", "error")]


@dataclass(frozen=True)
class Fault:
    """`case` is its number in the catalogue; of one that is `alone`, one happens at a time."""

    case: str
    name: str
    provoke: Callable[[Client], Heard]
    expected: Expected
    alone: bool = False

    @property
    def id(self) -> str:
        return f"{self.case} {self.name}"


Provoke = Callable[[Client], Heard]
Row = tuple[str, str, Provoke, Expected]
"""A fault as the tables tell it: case, name, what the client does, what it must see."""

SERVED = Expected(200)
MALFORMED = Expected(400, "malformed_request")
