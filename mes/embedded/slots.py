"""The connection of a client, and the slots of an engine given out in order of arrival."""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mes.embedded.api_errors import ClientLeft

# The places in one engine, given out in order of arrival.

LOOK_SECONDS = 0.1


class Slots:
    """The engine has a queue too, but it goes on working for callers who left theirs"""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def one(self, caller: ClientConnection) -> Iterator[None]:
        """Wait for a place and hold it; CallerLeft while it waits"""
        self._take(caller)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, caller: ClientConnection) -> None:
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


# The client's connection, watched while an answer is made for it.


class ClientConnection:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def check(self) -> None:
        """CallerLeft if the connection is closed from the other end"""
        if self.has_left():
            raise ClientLeft

    def has_left(self) -> bool:
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def wait_for(self, other: socket.socket) -> None:
        """Until there is something to read from the other; CallerLeft as soon as that happens"""
        poll = select.poll()
        poll.register(other, select.POLLIN)
        poll.register(self._connection, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if other.fileno() in ready:
                return
            self.check()
            # Not a hang-up but the next request of an eager client: it is not lost, only early.
            poll.unregister(self._connection)


class WatchfulSocket(socket.socket):
    """A socket whose every read ends when the caller, for whom it reads, has left"""

    caller: ClientConnection

    def recv_into(self, *args: Any) -> int:
        self.caller.wait_for(self)
        return super().recv_into(*args)
