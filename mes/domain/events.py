"""Events: what happens to an inference before its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mes.domain.results import Logprob


@dataclass(frozen=True, slots=True)
class Queued:
    """It has to wait; position 1 is the next to be served by its model."""

    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Its model is being loaded."""


class Token(NamedTuple):  # there are many: as a frozen dataclass it takes four times as long
    """A piece of the answer; with its tokens' probabilities where they were asked for."""

    text: str
    attempt: int = 1
    logprobs: tuple[Logprob, ...] = ()


class Thought(NamedTuple):
    """A piece of the reasoning before the answer."""

    text: str
    attempt: int = 1


Event = Queued | Loading | Token | Thought
"""What happens to an inference before its end."""


class Emit(Protocol):
    """Hears of the events; whatever it raises ends the inference."""

    def __call__(self, *events: Event) -> bool:
        """These have happened, in this order, since it was told last.

        True where they have been passed on. Only then the next ones may be told in another thread
        than the one that runs the inference, and that must wait meanwhile.
        """


def no_op(*events: Event) -> bool:
    """Where nobody wants to hear."""
    return False
