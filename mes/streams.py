"""Streams of events from running work to one reader, and the thread that pumps many of them."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from greenlet import greenlet

from mes.errors import ClientDisconnected, ClientTooSlow
from mes.event_loop import EventLoop

# A stream: what a piece of work tells while it goes on, for one reader who may be slow.

Item = TypeVar("Item")
Accepted = TypeVar("Accepted", contravariant=True)
Result = TypeVar("Result")

# An answer of usual length fits in, so that its permit is given back however slowly it is read.
_MOST_KEPT = 1024


class StreamReader(Protocol[Accepted]):
    """Whoever takes what is told."""

    def take(self, items: Sequence[Accepted], /) -> bool:
        """Take them without a wait, in any thread; False where none of them was taken."""

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Is there room for more, or is there within so many seconds? False once it left."""


class Stream(Generic[Item, Result]):
    """What the work tells, to be iterated to the end or closed; then it has a result.

    Work and iteration take turns in one thread: nothing that is told wakes anybody else. The reader
    takes it, where that needs no wait and nothing is kept. Otherwise it is kept, and iterated as
    soon as the reader has room: what was told at once comes at once. Once too much is kept the work
    pauses, altogether for no longer than `patience_seconds`, and then is ended by CallerTooSlow.
    """

    result: Result

    def __init__(
        self,
        work: Callable[[Callable[..., bool]], Result],
        *,
        reader: StreamReader[Item],
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


# The relay: one thread per process in which streams go on while nothing holds them up. Each
# stream has a thread of its own, which would wake for each token: with many streams at once,
# waking up costs several times what there is to do. The relay wakes once for all that have tokens
# by then. Whatever is more than passing on (the end, an error, a reader without room) is for the
# stream's own thread, which sleeps meanwhile.

Value = TypeVar("Value")

PumpSteps = Generator[bool, None, Value]
"""Something done in steps. The first thing a step does is to wait for its source, once.

After True the next step may be taken in the relay, and then waits for nothing else.
"""

HandedBack = SimpleQueue[BaseException | None]
"""Receives the exception that a step raised, or None if the next step has to be taken elsewhere.

A queue, not a future: a future keeps the exception, and the frames of the exception refer to the
future (from Python 3.13 on also through the frame of a generator), so that both would wait for the
garbage collector.
"""


class StreamPump:
    """Takes the steps of many streams, each as soon as its source can be read."""

    def __init__(self) -> None:
        self._event_loop = EventLoop(name="mes-relay")
        self._open_exchanges: set[HandedBack] = set()
        self._closed = False
        self._lock = threading.Lock()  # nothing is handed over to what is closed

    def run(self, steps: PumpSteps[Value], source: socket.socket | None) -> Value:
        """Take all steps; returns, or raises, what they do.

        Without a source that tells when it can be read, all of them are taken in this thread.
        """
        try:
            while True:
                if next(steps) and source is not None:
                    _wait(self._hand_over(steps, source))
        except StopIteration as end:
            result: Value = end.value
            return result

    def close(self) -> None:
        """End the thread. Streams that are left go on in their own."""
        with self._lock:
            self._closed = True
        self._event_loop.close()
        for handed_back in self._open_exchanges:
            handed_back.put(None)

    def _hand_over(self, steps: PumpSteps[Value], source: socket.socket) -> HandedBack:
        """Return a queue that receives an item when the steps are handed back."""
        handed_back: HandedBack = SimpleQueue()
        fd = source.fileno()

        def step() -> None:
            try:
                if next(steps):
                    return
            except BaseException as exc:
                self._let_go(fd, handed_back)
                handed_back.put(exc)
            else:
                self._let_go(fd, handed_back)
                handed_back.put(None)

        with self._lock:
            if self._closed:
                handed_back.put(None)
            else:
                self._open_exchanges.add(handed_back)
                self._event_loop.add_reader(fd, step)
        return handed_back

    def _let_go(self, fd: int, handed_back: HandedBack) -> None:
        self._open_exchanges.discard(handed_back)
        self._event_loop.remove_reader(fd)


def _wait(handed_back: HandedBack) -> None:
    """Return when the steps are handed back; raise the exception of a step that failed."""
    failure = handed_back.get()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # its traceback refers to this frame
