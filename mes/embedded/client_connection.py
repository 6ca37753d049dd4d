"""The connection of a client, watched so that work for a client that left can stop."""

from __future__ import annotations

import select
import socket
from typing import Any

from mes.embedded.api_errors import ClientLeft
from mes.server.client_socket import ClientSocket

# How often a thread that waits for something else looks whether its client has left.
CLIENT_CHECK_SECONDS = 0.1


class ClientConnection:
    """The client's end of a request; work for it stops when it is closed."""

    def __init__(self, connection: ClientSocket) -> None:
        self._connection = connection

    def begin_stream(self) -> None:
        """Wait from now on until the client reads, so that no stream is faster than its client."""
        self._connection.is_stream = True

    def check(self) -> None:
        """Raise `ClientLeft` if the client has closed the connection."""
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
        """Wait until `other` is readable. Raise `ClientLeft` as soon as the client leaves."""
        poll = select.poll()
        poll.register(other, select.POLLIN)
        poll.register(self._connection, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if other.fileno() in ready:
                return
            self.check()
            # The client pipelined its next request. It stays in the buffer until its turn.
            poll.unregister(self._connection)


class WatchfulSocket(socket.socket):
    """A socket whose reads raise `ClientLeft` once `client` has closed its connection."""

    client: ClientConnection

    def recv_into(self, *args: Any) -> int:
        self.client.wait_for(self)
        return super().recv_into(*args)
