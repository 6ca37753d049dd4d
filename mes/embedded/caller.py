"""The client's connection, watched while an answer is made for it."""

from __future__ import annotations

import select
import socket
from typing import Any

from .errors import CallerLeft


class Caller:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def check(self) -> None:
        """CallerLeft if the connection is closed from the other end"""
        if self.has_left():
            raise CallerLeft

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

    caller: Caller

    def recv_into(self, *args: Any) -> int:
        self.caller.wait_for(self)
        return super().recv_into(*args)
