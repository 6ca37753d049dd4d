"""A stream: what a piece of work tells while it goes on, for one reader who may be slow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from greenlet import greenlet

from mes.errors import ClientDisconnected, ClientTooSlow

Item = TypeVar("Item")
Taken = TypeVar("Taken", contravariant=True)
T = TypeVar("T")

# An answer of usual length fits in, so that its permit is given back however slowly it is read.
_MOST_KEPT = 1024


class Reader(Protocol[Taken]):
    """Whoever takes what is told."""

    def take(self, items: Sequence[Taken], /) -> bool:
        """Take them without a wait, in any thread; False where none of them was taken."""

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Is there room for more, or is there within so many seconds? False once it left."""


class Stream(Generic[Item, T]):
    """What the work tells, to be iterated to the end or closed; then it has a result.

    Work and iteration take turns in one thread: nothing that is told wakes anybody else. The reader
    takes it, where that needs no wait and nothing is kept. Otherwise it is kept, and iterated as
    soon as the reader has room: what was told at once comes at once. Once too much is kept the work
    pauses, altogether for no longer than `patience_seconds`, and then is ended by CallerTooSlow.
    """

    result: T

    def __init__(
        self,
        work: Callable[[Callable[..., bool]], T],
        *,
        reader: Reader[Item],
        patience_seconds: float,
    ) -> None:
        self._work = greenlet(lambda: work(self._emit))
        self._reader = reader
        self._patience_seconds = patience_seconds
        self._kept: deque[tuple[Item, ...]] = deque()

    def __iter__(self) -> Iterator[Sequence[Item]]:
        """What the reader did not take. Raises what the work raises, after all that it told."""
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
            with suppress(ClientDisconnected):
                self._work.throw(ClientDisconnected("the caller has hung up"))

    def _may_hand_over_more(self) -> bool:
        """Can the reader take it, or is nothing else to be done?"""
        return self._work.dead or self._reader.can_take_more()

    def _emit(self, *items: Item) -> bool:
        """True where the reader has taken them, and what is told next may come in any thread."""
        if not items:
            return False
        if not self._kept and self._reader.take(items):
            return True
        self._kept.append(items)
        if greenlet.getcurrent() is self._work:
            self._hand_over()
        return False

    def _hand_over(self) -> None:
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
            raise ClientDisconnected("the caller has hung up")
        raise ClientTooSlow("the stream was not read in time")
