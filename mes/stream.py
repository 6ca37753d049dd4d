"""A stream: what a piece of work tells while it goes on, for one reader who may be slow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from greenlet import greenlet

from mes.domain import Event, Tell
from mes.errors import CallerGone, CallerTooSlow

T = TypeVar("T")
Product = TypeVar("Product", covariant=True)

# An answer of usual length fits in, so that its permit is given back however slowly it is read.
_MOST_KEPT = 1024


class Work(Protocol[Product]):
    """What is to be done; it may be told of at any depth of it."""

    def __call__(self, *, tell: Tell) -> Product: ...


class Reader(Protocol):
    """Whoever takes the events."""

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Is there room to send more, or is there within so many seconds? False once it left."""


class Stream(Generic[T]):
    """The events of the work, to be iterated to the end or closed; then it has a result.

    Work and iteration take turns in one thread: each event wakes nobody else. What is told at once
    comes at once. While the reader can take no more, events are kept and the work goes on. Once
    too many are kept it pauses, altogether for no longer than `patience_seconds`, and then is
    ended by CallerTooSlow.
    """

    result: T

    def __init__(self, work: Work[T], *, reader: Reader, patience_seconds: float) -> None:
        self._work = greenlet(lambda: work(tell=self._tell))
        self._reader = reader
        self._patience_seconds = patience_seconds
        self._kept: deque[tuple[Event, ...]] = deque()

    def __iter__(self) -> Iterator[Sequence[Event]]:
        """The events as they come. Raises what the work raises, after the last of them."""
        while not self._work.dead:
            try:
                self.result = self._work.switch()
            finally:
                while self._kept:
                    yield self._kept.popleft()
                    if self._kept and not self._may_hand_over_more():
                        break

    def close(self) -> None:
        """End the work where it is, for nobody is left to read of it."""
        if self._work:
            with suppress(CallerGone):
                self._work.throw(CallerGone("the caller has hung up"))

    def _may_hand_over_more(self) -> bool:
        """Can the reader take it, or is nothing else to be done?"""
        return self._work.dead or self._reader.can_take_more()

    def _tell(self, *events: Event) -> None:
        self._kept.append(events)
        if self._reader.can_take_more() or (self._is_full() and self._waited()):
            assert self._work.parent is not None
            self._work.parent.switch()

    def _is_full(self) -> bool:
        return sum(map(len, self._kept)) >= _MOST_KEPT

    def _waited(self) -> bool:
        """Wait until the reader can take more."""
        began, left = time.monotonic(), max(0.0, self._patience_seconds)
        if self._reader.can_take_more(within=left):
            self._patience_seconds -= time.monotonic() - began
            return True
        if time.monotonic() - began < left:
            raise CallerGone("the caller has hung up")
        raise CallerTooSlow("the stream was not read in time")
