"""The watch: one thread per process that waits for many things so that requests need not poll.

It notices callers that hang up, deadlines that pass and descriptors that become readable, and
calls what was registered for it. What it calls must be quick: set an event, shut a socket.
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

# Alarms further away than this need not wake the thread: it looks by itself this often.
_LOOKS_EVERY_SECONDS = 1.0


# Nearly all alarms are called off: most requests end before their deadline. Sorting them out costs
# a pass over all, so it waits until that many have gathered and half of all are among them.
_MANY_CANCELLED = 1000


class Timer:
    """Something to do at a time, unless it is called off before."""

    __slots__ = ("_event_loop", "act")

    def __init__(self, act: Callback, event_loop: EventLoop) -> None:
        self.act: Callback | None = act
        self._event_loop = event_loop

    def cancel(self) -> None:
        self.act = None
        self._event_loop.cancelled += 1


class EventLoop:
    """Waits for hang-ups, alarms and readable descriptors on behalf of a whole process.

    Thread-safe. The thread starts with the first registration, so that a process may fork before.
    """

    def __init__(self, name: str = "mes-watch") -> None:
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
    def hang_up(self, sock: socket.socket, act: Callback) -> Iterator[None]:
        """Inside the block, call `act` once if the other end of `sock` goes away.

        A peer that only closes its writing half counts as gone: over TCP the two look alike.
        """
        fd = sock.fileno()
        if fd < 0:  # closed before we came to look
            act()
            yield
            return

        def act_if_gone() -> None:
            # The event may be old news of a connection whose number this one has taken over.
            if _peer_is_gone(fd):
                act()

        self._register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT, act_if_gone)
        try:
            yield
        finally:
            self._unregister(fd)

    def readable(self, fd: int, act: Callback) -> None:
        """Call `act` whenever `fd` can be read, until this watch is closed."""
        self._register(fd, select.EPOLLIN, act)

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer."""
        self._unregister(fd)

    def at(self, when: float, act: Callback) -> Timer:
        """Call `act` at `when` (of `time.monotonic()`), unless the alarm is called off."""
        timer = Timer(act, self)
        with self._lock:
            self._drop_cancelled_timers()
            heapq.heappush(self._timers, (when, next(self._order), timer))
            must_wake = when < self._next_wakeup
        self._start()
        if must_wake:
            self._wake()
        return timer

    def close(self) -> None:
        """Stop the thread. What is registered is forgotten, not called."""
        self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wakeup_reader)
        os.close(self._wakeup_writer)

    def _register(self, fd: int, events: int, act: Callback) -> None:
        self._callbacks[fd] = act
        self._epoll.register(fd, events)
        self._start()

    def _unregister(self, fd: int) -> None:
        self._callbacks.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except OSError:
            # The server closed the connection under us, and the kernel forgot it by itself.
            pass

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
            pass  # enough nudges are waiting already

    def _drain_wakeups(self) -> None:
        os.read(self._wakeup_reader, 4096)

    def _run(self) -> None:
        while not self._closed:
            for fd, _ in self._epoll.poll(self._seconds_until_next_timer()):
                self._call(self._callbacks.get(fd))
            for timer in self._due_timers():
                self._call(timer.act)

    def _drop_cancelled_timers(self) -> None:
        if self.cancelled > max(_MANY_CANCELLED, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if entry[2].act is not None]
            heapq.heapify(self._timers)
            self.cancelled = 0

    def _seconds_until_next_timer(self) -> float:
        now = time.monotonic()
        with self._lock:
            self._next_wakeup = now + _LOOKS_EVERY_SECONDS
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
    def _call(act: Callback | None) -> None:
        if act is None:
            return
        try:
            act()
        except Exception:
            # One request's trouble must not end the watch of all the others.
            log.exception("watch_failed")


def _peer_is_gone(fd: int) -> bool:
    look = select.poll()
    look.register(fd, select.POLLRDHUP)
    return bool(look.poll(0))


class SocketClient:
    """A caller who may hang up (domain.Caller)."""

    def __init__(self) -> None:
        self._gone = False
        self._callbacks: list[Callback] = []
        self._lock = threading.Lock()

    @property
    def gone(self) -> bool:
        return self._gone

    def hang_up(self) -> None:
        """Note that the caller has gone and call what waits for it."""
        with self._lock:
            self._gone = True
            acts, self._callbacks = self._callbacks, []
        for act in acts:
            act()

    @contextmanager
    def on_disconnect(self, act: Callback) -> Iterator[None]:
        with self._lock:
            already_gone = self._gone
            if not already_gone:
                self._callbacks.append(act)
        if already_gone:
            act()
        try:
            yield
        finally:
            with self._lock:
                if act in self._callbacks:
                    self._callbacks.remove(act)


@contextmanager
def watch_client(event_loop: EventLoop, sock: socket.socket | None) -> Iterator[SocketClient]:
    """The caller behind a socket, watched for the length of the block; without one, never gone."""
    client = SocketClient()
    if sock is None:
        yield client
        return
    with event_loop.hang_up(sock, client.hang_up):
        yield client
