"""Events: what happens to an inference before its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mes.domain.replies import Logprob


@dataclass(frozen=True, slots=True)
class Queued:
    """It has to wait; position 1 is the next to be served by its model."""

    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Its model is being loaded."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer; with its tokens' probabilities where they were asked for."""

    text: str
    attempt: int = 1
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the reasoning before the answer."""

    text: str
    attempt: int = 1


Event = Queued | Loading | Token | Thought
"""What happens to an inference before its end."""


class Tell(Protocol):
    """Hears of the events, in the thread that runs the inference; whatever it raises ends that."""

    def __call__(self, *events: Event) -> None:
        """These have happened, in this order, since it was told last."""


def silent(*events: Event) -> None:
    """Where nobody wants to hear."""
