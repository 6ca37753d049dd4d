"""The slots of an engine, each for one request at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mes.embedded.client_connection import CLIENT_CHECK_SECONDS, ClientConnection


class Slots:
    """The engine's slots for requests, granted in order of arrival.

    The engine has a queue too, but it processes queued requests of clients that have left.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def acquire(self, client: ClientConnection) -> Iterator[None]:
        """Wait for a slot and keep it for the block. Raise `ClientLeft` if the client leaves."""
        self._wait(client)
        try:
            yield
        finally:
            self._release()

    def _wait(self, client: ClientConnection) -> None:
        granted = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            self._queue.append(granted)
        try:
            while not granted.wait(CLIENT_CHECK_SECONDS):
                client.check()
        except BaseException:
            self._leave_queue(granted)
            raise

    def _leave_queue(self, granted: threading.Event) -> None:
        with self._lock:
            if granted in self._queue:
                self._queue.remove(granted)
                return
        # The slot was granted at the moment of leaving: pass it on.
        self._release()

    def _release(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1
