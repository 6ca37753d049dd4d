"""One fault: how a test provokes it, and the response that the client must get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.client import Client, Response


@dataclass(frozen=True)
class Expected:
    """The response that the client must get; the code of a success is None.

    `also` is a further condition that the response must meet.
    """

    status: int
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    also: Callable[[Response], bool] = lambda response: True
    within_seconds: float = 20.0

    def assert_met_by(self, response: Response) -> None:
        assert response.outcome == (self.status, self.code), response.body[:300]
        # The head of a stream is sent before the fault, so it has no headers of an error.
        assert response.streamed or self.headers.items() <= response.headers.items()
        assert self.also(response), response.body[:300]
        assert response.seconds < self.within_seconds
        if response.streamed:
            assert _final_lines(response) == [response.lines[-1]["type"]]
        if response.status >= 400:
            assert response.headers["content-type"] == "application/problem+json"


def _final_lines(response: Response) -> list[str]:
    """Return the types of the lines that end a stream; there must be one, and it is the last."""
    return [each["type"] for each in response.lines if each["type"] in ("result", "error")]


@dataclass(frozen=True)
class Fault:
    """A fault with its number in the catalogue. Faults with `alone` are provoked one at a time."""

    case: str
    name: str
    provoke: Callable[[Client], Response]
    expected: Expected
    alone: bool = False

    @property
    def id(self) -> str:
        return f"{self.case} {self.name}"


Provoke = Callable[[Client], Response]
Row = tuple[str, str, Provoke, Expected]
"""A fault in a table: number in the catalogue, name, action of the client, expected response."""

SERVED = Expected(200)
MALFORMED = Expected(400, "malformed_request")
