"""The places in one engine, given out in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .caller import Caller

LOOK_SECONDS = 0.1


class Slots:
    """The engine has a queue too, but it goes on working for callers who left theirs"""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """Wait for a place and hold it; CallerLeft while it waits"""
        self._take(caller)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, caller: Caller) -> None:
        turn = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            self._queue.append(turn)
        try:
            while not turn.wait(LOOK_SECONDS):
                caller.check()
        except BaseException:
            self._leave_queue(turn)
            raise

    def _leave_queue(self, turn: threading.Event) -> None:
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
                return
        # The place came while this one was leaving; somebody else can have it.
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1
