"""Events: the progress of an inference until its result is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mes.domain.results import Logprob


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits in the queue; its model serves position 1 next."""

    position: int


@dataclass(frozen=True, slots=True)
class Loading:
    """The request waits for its model to be loaded."""


class Token(NamedTuple):  # one per token: creating a frozen dataclass takes four times as long
    """A piece of the answer's text.

    `logprobs` are the probabilities of its tokens, if the request asks for them.
    """

    text: str
    attempt: int = 1
    logprobs: tuple[Logprob, ...] = ()


class Thought(NamedTuple):
    """A piece of the model's reasoning, which precedes the answer."""

    text: str
    attempt: int = 1


Event = Queued | Loading | Token | Thought
"""Any progress of an inference."""


class Emit(Protocol):
    """A callback that receives the events. An exception that it raises ends the inference."""

    def __call__(self, *events: Event) -> bool:
        """Receive the events since the previous call, in their order.

        Return True if the events were passed on at once. Only then may the next call come from
        another thread than the one that runs the inference; that thread must wait meanwhile.
        """


def no_op(*events: Event) -> bool:
    """Ignore the events."""
    return False


def without_text(emit: Emit) -> Emit:
    """Return an `emit` for an answer whose text is a call: calls are reported when complete."""

    def emit_others(*events: Event) -> bool:
        return emit(*(event for event in events if not isinstance(event, Token)))

    return emit_others


def with_attempt_number(number: int, emit: Emit) -> Emit:
    """Return an `emit` that sets the attempt's number in the events; 1 is their default."""
    if number == 1:
        return emit

    def emit_numbered(*events: Event) -> bool:
        return emit(*(_numbered(event, number) for event in events))

    return emit_numbered


def _numbered(event: Event, number: int) -> Event:
    return event._replace(attempt=number) if isinstance(event, Token | Thought) else event
