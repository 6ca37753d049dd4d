"""The event loop: one thread per process that waits on behalf of all requests.

It notices clients that disconnect, times that pass and file descriptors that become readable, and
calls the registered callbacks. A callback must return quickly: it sets an event, shuts down a
socket or starts other work.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

Callback = Callable[[], None]

# The thread wakes up at least this often, so a later timer need not wake it when it is added.
_MAX_SLEEP_SECONDS = 1.0

# Nearly all timers are cancelled, because most requests end before their deadline. Removing the
# cancelled ones costs a pass over all, so it waits for this many, and for half of all.
_MIN_CANCELLED_TO_REMOVE = 1000


class Timer:
    """A callback that runs at a set time, unless it is cancelled before."""

    __slots__ = ("_event_loop", "callback")

    def __init__(self, callback: Callback, event_loop: EventLoop) -> None:
        self.callback: Callback | None = callback
        self._event_loop = event_loop

    def cancel(self) -> None:
        self.callback = None
        self._event_loop.cancelled += 1


class EventLoop:
    """Waits for disconnects, timers and readable file descriptors. Thread-safe.

    The thread starts with the first registration, so that a process may fork before it.
    """

    def __init__(self, name: str = "mes-event-loop") -> None:
        self._name = name
        self._epoll = select.epoll()
        self._wakeup_reader, self._wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._callbacks: dict[int, Callback] = {self._wakeup_reader: self._drain_wakeups}
        self._epoll.register(self._wakeup_reader, select.EPOLLIN)
        self._timers: list[tuple[float, int, Timer]] = []
        self.cancelled = 0
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_wakeup = 0.0
        self._closed = False

    @contextmanager
    def on_disconnect(self, sock: socket.socket, callback: Callback) -> Iterator[None]:
        """Inside the block, call `callback` once if the peer of `sock` closes the connection.

        A peer that only closes its writing half counts as disconnected: over TCP the two look
        alike.
        """
        fd = sock.fileno()
        if fd < 0:  # the socket was closed before
            callback()
            yield
            return

        def call_if_disconnected() -> None:
            # The event may belong to an earlier connection with the same descriptor.
            if _peer_is_disconnected(fd):
                callback()

        self._register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT, call_if_disconnected)
        try:
            yield
        finally:
            self.remove_reader(fd)

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` is readable, until `remove_reader` or `close`."""
        self._register(fd, select.EPOLLIN, callback)

    def remove_reader(self, fd: int) -> None:
        """Stop watching `fd`."""
        self._callbacks.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except OSError:
            # The server has closed the connection, and the kernel has removed it by itself.
            pass

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Call `callback` at `when`, a time of `time.monotonic()`, unless the timer is cancelled.

        Return the timer.
        """
        timer = Timer(callback, self)
        with self._lock:
            self._remove_cancelled_timers()
            heapq.heappush(self._timers, (when, next(self._order), timer))
            must_wake = when < self._next_wakeup
        self._start()
        if must_wake:
            self._wake()
        return timer

    def close(self) -> None:
        """Stop the thread. Registered callbacks are dropped without a call."""
        self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wakeup_reader)
        os.close(self._wakeup_writer)

    def _register(self, fd: int, events: int, callback: Callback) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)
        self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _wake(self) -> None:
        try:
            os.write(self._wakeup_writer, b"!")
        except BlockingIOError:
            pass  # the pipe is full, so the thread will wake up anyway

    def _drain_wakeups(self) -> None:
        os.read(self._wakeup_reader, 4096)

    def _run(self) -> None:
        while not self._closed:
            for fd, _ in self._epoll.poll(self._seconds_until_next_timer()):
                self._call(self._callbacks.get(fd))
            for timer in self._due_timers():
                self._call(timer.callback)

    def _remove_cancelled_timers(self) -> None:
        if self.cancelled > max(_MIN_CANCELLED_TO_REMOVE, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self.cancelled = 0

    def _seconds_until_next_timer(self) -> float:
        now = time.monotonic()
        with self._lock:
            self._next_wakeup = now + _MAX_SLEEP_SECONDS
            if self._timers:
                self._next_wakeup = min(self._next_wakeup, max(now, self._timers[0][0]))
            return self._next_wakeup - now

    def _due_timers(self) -> list[Timer]:
        now = time.monotonic()
        due = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        return due

    @staticmethod
    def _call(callback: Callback | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception:
            # A failure in one request's callback must not end the loop for all the others.
            log.exception("event_loop_callback_failed")


def _peer_is_disconnected(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class SocketClient:
    """The client at the other end of a socket; implements `domain.Client`."""

    def __init__(self) -> None:
        self._disconnected = False
        self._callbacks: list[Callback] = []
        self._lock = threading.Lock()

    @property
    def disconnected(self) -> bool:
        return self._disconnected

    def mark_disconnected(self) -> None:
        """Record that the client has disconnected, and call the registered callbacks."""
        with self._lock:
            self._disconnected = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @contextmanager
    def on_disconnect(self, callback: Callback) -> Iterator[None]:
        """Inside the block, call `callback` once if the client disconnects, or has before."""
        with self._lock:
            already_disconnected = self._disconnected
            if not already_disconnected:
                self._callbacks.append(callback)
        if already_disconnected:
            callback()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)


@contextmanager
def watch_client(event_loop: EventLoop, sock: socket.socket | None) -> Iterator[SocketClient]:
    """Yield the client at the other end of `sock`, watched for the length of the block.

    Without a socket the client never disconnects.
    """
    client = SocketClient()
    if sock is None:
        yield client
        return
    with event_loop.on_disconnect(sock, client.mark_disconnected):
        yield client
