"""The relay: one thread per process in which streams go on while nothing holds them up.

Each stream has a thread of its own, which would wake for each token: with many streams at once,
waking up costs several times what there is to do. The relay wakes once for all that have tokens
by then. Whatever is more than passing on (the end, an error, a reader without room) is for the
stream's own thread, which sleeps meanwhile.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TypeVar

from mes.watch import Watch

T = TypeVar("T")

Steps = Generator[bool, None, T]
"""Something done in steps. The first thing a step does is to wait for its source, once.

After True the next step may be taken in the relay, and then waits for nothing else.
"""

HandedBack = SimpleQueue[BaseException | None]
"""Receives the exception that a step raised, or None if the next step has to be taken elsewhere.

A queue, not a future: a future keeps the exception, and the frames of the exception refer to the
future (from Python 3.13 on also through the frame of a generator), so that both would wait for the
garbage collector.
"""


class Relay:
    """Takes the steps of many streams, each as soon as its source can be read."""

    def __init__(self) -> None:
        self._watch = Watch(name="mes-relay")
        self._under_way: set[HandedBack] = set()
        self._closed = False
        self._lock = threading.Lock()  # nothing is handed over to what is closed

    def run(self, steps: Steps[T], source: socket.socket | None) -> T:
        """Take all steps; returns, or raises, what they do.

        Without a source that tells when it can be read, all of them are taken in this thread.
        """
        try:
            while True:
                if next(steps) and source is not None:
                    _wait(self._hand_over(steps, source))
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        """End the thread. Streams that are left go on in their own."""
        with self._lock:
            self._closed = True
        self._watch.close()
        for handed_back in self._under_way:
            handed_back.put(None)

    def _hand_over(self, steps: Steps[T], source: socket.socket) -> HandedBack:
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
                self._under_way.add(handed_back)
                self._watch.readable(fd, step)
        return handed_back

    def _let_go(self, fd: int, handed_back: HandedBack) -> None:
        self._under_way.discard(handed_back)
        self._watch.forget(fd)


def _wait(handed_back: HandedBack) -> None:
    """Return when the steps are handed back; raise the exception of a step that failed."""
    failure = handed_back.get()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # its traceback refers to this frame
