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
from concurrent.futures import Future
from typing import TypeVar

from mes.watch import Watch

T = TypeVar("T")

Steps = Generator[bool, None, T]
"""Something done in steps. The first thing a step does is to wait for its source, once.

After True the next step may be taken in the relay, and then waits for nothing else.
"""


class Relay:
    """Takes the steps of many streams, each as soon as its source can be read."""

    def __init__(self) -> None:
        self._watch = Watch(name="mes-relay")
        self._under_way: set[Future[None]] = set()
        self._closed = False
        self._lock = threading.Lock()  # nothing is handed over to what is closed

    def run(self, steps: Steps[T], source: socket.socket | None) -> T:
        """Take all steps; returns, or raises, what they do.

        Without a source that tells when it can be read, all of them are taken in this thread.
        """
        try:
            while True:
                if next(steps) and source is not None:
                    self._hand_over(steps, source).result()
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        """End the thread. Streams that are left go on in their own."""
        with self._lock:
            self._closed = True
        self._watch.close()
        for handed_back in self._under_way:
            handed_back.set_result(None)

    def _hand_over(self, steps: Steps[T], source: socket.socket) -> Future[None]:
        """Done when the next step has to be taken elsewhere; fails as the steps do."""
        handed_back: Future[None] = Future()
        fd = source.fileno()

        def step() -> None:
            try:
                if next(steps):
                    return
            except BaseException as exc:
                self._let_go(fd, handed_back)
                # Without this frame, which knows the future: they would hold each other.
                trace = exc.__traceback__ and exc.__traceback__.tb_next
                handed_back.set_exception(exc.with_traceback(trace))
            else:
                self._let_go(fd, handed_back)
                handed_back.set_result(None)

        with self._lock:
            if self._closed:
                handed_back.set_result(None)
            else:
                self._under_way.add(handed_back)
                self._watch.readable(fd, step)
        return handed_back

    def _let_go(self, fd: int, handed_back: Future[None]) -> None:
        self._under_way.discard(handed_back)
        self._watch.forget(fd)
