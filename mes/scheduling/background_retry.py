"""Repeats an operation in the background until it succeeds."""

from __future__ import annotations

import threading
from collections.abc import Callable

_PAUSE_SECONDS = 0.25


class BackgroundRetry:
    """A thread that calls an operation until it succeeds; it runs only when it is needed.

    Args:
        name: The name of the thread.
        operation: Returns whether it has succeeded. It raises nothing.
    """

    def __init__(self, name: str, operation: Callable[[], bool]) -> None:
        self._name = name
        self._operation = operation
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._requested = False
        self._stopping = threading.Event()

    def begin(self) -> None:
        """Call the operation in a moment, and repeatedly until it succeeds."""
        with self._lock:
            self._requested = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Begin no further call, and wait for the end of the present one."""
        self._stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            with self._lock:
                self._requested = False
            succeeded = self._operation()
            with self._lock:
                # A request that came during the call may concern what the call has not seen.
                if succeeded and not self._requested:
                    self._thread = None
                    return
