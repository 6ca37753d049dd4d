"""The generations of a request with several choices, a few at a time, each with a permit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mes.domain import Client, Inference, no_op
from mes.errors import ClientDisconnected, QueueFull
from mes.event_loop import SocketClient

# Each one takes a thread. The further permits of a model serve other requests.
_MAX_CONCURRENT = 16

Generate = Callable[..., Inference]
"""Run one generation with the arguments `client` and `is_continued`, and return its result."""


@contextmanager
def running(
    calls: Sequence[Generate],
    *,
    client: Client,
    max_concurrent: int,
    wait_slots: threading.BoundedSemaphore,
    on_end: Callable[[], object] = no_op,
) -> Iterator[Generations]:
    """Run the calls during the block; those that have not ended by then are cancelled.

    Args:
        client: The client of the request; all generations end when it disconnects.
        max_concurrent: The number of permits of the model.
        wait_slots: One is taken for each thread but the first, whose slot the request has.
        on_end: Called in one of the threads when no generation is left.
    """
    generations = Generations(calls, wait_slots, on_end)
    with client.on_disconnect(generations.cancel):
        try:
            generations.start(min(len(calls), max_concurrent, _MAX_CONCURRENT))
            yield generations
        finally:
            generations.cancel()
            generations.join()


class Generations:
    """The generations of one request, of which as many run at a time as there are threads.

    The others hold no ticket: one request does not fill the queue of its model, and other requests
    get their turn between its generations. The first failure ends all generations.
    """

    def __init__(
        self,
        calls: Sequence[Generate],
        wait_slots: threading.BoundedSemaphore,
        on_end: Callable[[], object],
    ) -> None:
        self._calls = calls
        self._wait_slots = wait_slots
        self._on_end = on_end
        # Disconnects with the client of the request, and at the first failure.
        self._client = SocketClient()
        self._results: dict[int, Inference] = {}
        self._failure: BaseException | None = None
        self._pending = deque(range(len(calls)))
        self._running_threads = 0
        self._extra_slots = 0
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def start(self, count: int) -> None:
        """Start so many threads; fewer if the worker has no wait slots for them."""
        while self._extra_slots + 1 < count and self._wait_slots.acquire(blocking=False):
            self._extra_slots += 1
        self._running_threads = self._extra_slots + 1
        for _ in range(self._running_threads):
            thread = threading.Thread(target=self._run, name="mes-generation", daemon=True)
            thread.start()
            self._threads.append(thread)

    def cancel(self) -> None:
        """Begin no further generation, and end all others with ClientDisconnected."""
        self._client.mark_disconnected()

    def join(self) -> None:
        """Wait until all generations have ended and have given back their permits."""
        for thread in self._threads:
            thread.join()
        while self._extra_slots:
            self._extra_slots -= 1
            self._wait_slots.release()

    def results(self) -> list[Inference]:
        """Return the results in the order of the calls. Raise the first failure."""
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback refers to this frame
        if len(self._results) < len(self._calls):
            raise ClientDisconnected("the client has disconnected")
        return [self._results[index] for index in range(len(self._calls))]

    def _run(self) -> None:
        is_continued = False
        while (index := self._next()) is not None:
            try:
                self._results[index] = self._calls[index](
                    client=self._client, is_continued=is_continued
                )
            except QueueFull as exc:
                if self._leave_to_others(index):
                    return
                self._fail(exc)
            except BaseException as exc:
                self._fail(exc)
            is_continued = True

    def _next(self) -> int | None:
        """Return the next generation; None if the thread ends."""
        with self._lock:
            if self._pending and not self._client.disconnected:
                return self._pending.popleft()
            self._running_threads -= 1
            is_last = self._running_threads == 0
        if is_last:
            self._on_end()
        return None

    def _leave_to_others(self, index: int) -> bool:
        """Leave the generation and the rest to the other threads; return False without any."""
        with self._lock:
            if self._running_threads == 1:
                return False
            self._running_threads -= 1
            self._pending.appendleft(index)
            return True

    def _fail(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
        self.cancel()
