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

Act = Callable[[], None]

# Alarms further away than this need not wake the thread: it looks by itself this often.
_LOOKS_EVERY_SECONDS = 1.0


# Nearly all alarms are called off: most requests end before their deadline. Sorting them out costs
# a pass over all, so it waits until that many have gathered and half of all are among them.
_MANY_CALLED_OFF = 1000


class Alarm:
    """Something to do at a time, unless it is called off before."""

    __slots__ = ("_watch", "act")

    def __init__(self, act: Act, watch: Watch) -> None:
        self.act: Act | None = act
        self._watch = watch

    def call_off(self) -> None:
        self.act = None
        self._watch.called_off += 1


class Watch:
    """Waits for hang-ups, alarms and readable descriptors on behalf of a whole process.

    Thread-safe. The thread starts with the first registration, so that a process may fork before.
    """

    def __init__(self, name: str = "mes-watch") -> None:
        self._name = name
        self._epoll = select.epoll()
        self._nudge_reader, self._nudge_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._acts: dict[int, Act] = {self._nudge_reader: self._take_nudge}
        self._epoll.register(self._nudge_reader, select.EPOLLIN)
        self._alarms: list[tuple[float, int, Alarm]] = []
        self.called_off = 0
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_look = 0.0
        self._closed = False

    @contextmanager
    def hang_up(self, sock: socket.socket, act: Act) -> Iterator[None]:
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

    def readable(self, fd: int, act: Act) -> None:
        """Call `act` whenever `fd` can be read, until this watch is closed."""
        self._register(fd, select.EPOLLIN, act)

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer."""
        self._unregister(fd)

    def at(self, when: float, act: Act) -> Alarm:
        """Call `act` at `when` (of `time.monotonic()`), unless the alarm is called off."""
        alarm = Alarm(act, self)
        with self._lock:
            self._sort_out()
            heapq.heappush(self._alarms, (when, next(self._order), alarm))
            must_wake = when < self._next_look
        self._start()
        if must_wake:
            self._nudge()
        return alarm

    def close(self) -> None:
        """Stop the thread. What is registered is forgotten, not called."""
        self._closed = True
        self._nudge()
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._nudge_reader)
        os.close(self._nudge_writer)

    def _register(self, fd: int, events: int, act: Act) -> None:
        self._acts[fd] = act
        self._epoll.register(fd, events)
        self._start()

    def _unregister(self, fd: int) -> None:
        self._acts.pop(fd, None)
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

    def _nudge(self) -> None:
        try:
            os.write(self._nudge_writer, b"!")
        except BlockingIOError:
            pass  # enough nudges are waiting already

    def _take_nudge(self) -> None:
        os.read(self._nudge_reader, 4096)

    def _run(self) -> None:
        while not self._closed:
            for fd, _ in self._epoll.poll(self._until_next_alarm()):
                self._call(self._acts.get(fd))
            for alarm in self._due_alarms():
                self._call(alarm.act)

    def _sort_out(self) -> None:
        if self.called_off > max(_MANY_CALLED_OFF, len(self._alarms) // 2):
            self._alarms = [entry for entry in self._alarms if entry[2].act is not None]
            heapq.heapify(self._alarms)
            self.called_off = 0

    def _until_next_alarm(self) -> float:
        now = time.monotonic()
        with self._lock:
            self._next_look = now + _LOOKS_EVERY_SECONDS
            if self._alarms:
                self._next_look = min(self._next_look, max(now, self._alarms[0][0]))
            return self._next_look - now

    def _due_alarms(self) -> list[Alarm]:
        now = time.monotonic()
        due = []
        with self._lock:
            while self._alarms and self._alarms[0][0] <= now:
                due.append(heapq.heappop(self._alarms)[2])
        return due

    @staticmethod
    def _call(act: Act | None) -> None:
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


class SocketCaller:
    """A caller who may hang up (domain.Caller)."""

    def __init__(self) -> None:
        self._gone = False
        self._acts: list[Act] = []
        self._lock = threading.Lock()

    @property
    def gone(self) -> bool:
        return self._gone

    def hang_up(self) -> None:
        """Note that the caller has gone and call what waits for it."""
        with self._lock:
            self._gone = True
            acts, self._acts = self._acts, []
        for act in acts:
            act()

    @contextmanager
    def on_disconnect(self, act: Act) -> Iterator[None]:
        with self._lock:
            already_gone = self._gone
            if not already_gone:
                self._acts.append(act)
        if already_gone:
            act()
        try:
            yield
        finally:
            with self._lock:
                if act in self._acts:
                    self._acts.remove(act)


@contextmanager
def watched_caller(watch: Watch, sock: socket.socket | None) -> Iterator[SocketCaller]:
    """The caller behind a socket, watched for the length of the block; without one, never gone."""
    client = SocketCaller()
    if sock is None:
        yield client
        return
    with watch.hang_up(sock, client.hang_up):
        yield client
