"""Answers that a client does not read: no thread waits, and the client has limited time."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from mes.server.client_socket import PIECE_BYTES, ClientSocket, UnreadAnswers

# More than a socket keeps for a client that does not read.
LARGE = random.Random(0).randbytes(4_000_000)
LONG_SECONDS = 60.0


@pytest.fixture
def ends() -> Iterator[tuple[ClientSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ClientSocket.adopt(ours) as adopted, theirs:
        theirs.settimeout(30)
        yield adopted, theirs


class Connection:
    """A connection whose answer has not been read, and the events about it."""

    def __init__(self, sock: ClientSocket, *, seconds: float) -> None:
        self.sock = sock
        self.client = ("192.0.2.1", 50_000)
        self.events: list[str] = []
        self.poller = selectors.DefaultSelector()
        self.unread = UnreadAnswers(
            self.poller, seconds=seconds, when_lost=lambda conn: self.events.append("lost")
        )
        self.unread.add(self, lambda: self.events.append("sent"))

    def poll(self) -> None:
        """Do one round of the poller."""
        for key, _ in self.poller.select(0):
            key.data(key.fileobj)
        self.unread.close_expired()


def received(sock: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes, or fewer if the connection ends."""
    return sock.makefile("rb").read(size)


def test_an_answer_is_sent_without_waiting_for_its_client(ends):
    ours, theirs = ends
    ours.sendall(b"head")
    ours.sendall(LARGE)
    ours.sendall(b"end")
    assert 0 < ours.unsent_bytes < len(LARGE)

    connection = Connection(ours, seconds=LONG_SECONDS)
    read = b""
    while not connection.events:
        read += theirs.recv(PIECE_BYTES)
        connection.poll()
    read += received(theirs, 7 + len(LARGE) - len(read))
    assert read == b"head" + LARGE + b"end"
    assert connection.events == ["sent"]
    assert not connection.poller.get_map()


def test_a_short_answer_keeps_nothing(ends):
    ours, theirs = ends
    ours.sendall(b"answer")
    assert ours.unsent_bytes == 0
    assert theirs.recv(100) == b"answer"


def test_bytes_sent_before_the_answer_stay_before_it(ends):
    ours, theirs = ends
    ours.sendall(LARGE)
    assert ours.send(b"HTTP/1.1 100 Continue\r\n\r\n") == 25
    assert ours.unsent_bytes > 25
    threading.Thread(target=ours_as_stream, args=(ours, b"stream")).start()
    assert received(theirs, len(LARGE) + 31)[-31:] == b"HTTP/1.1 100 Continue\r\n\r\nstream"


def ours_as_stream(ours: ClientSocket, data: bytes) -> None:
    ours.is_stream = True
    ours.setblocking(True)
    with suppress(OSError):  # the test ends the connection
        ours.sendall(data)


def test_a_stream_waits_for_its_client(ends):
    ours, theirs = ends
    sending = threading.Thread(target=ours_as_stream, args=(ours, LARGE))
    sending.start()
    assert received(theirs, 4) == LARGE[:4]
    assert sending.is_alive()
    ours.shutdown(socket.SHUT_RDWR)
    sending.join(30)
    assert not sending.is_alive()


def test_a_stream_that_is_not_read_ends_at_the_timeout_of_its_socket():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        timeout = struct.pack("ll", 0, 100_000)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        with socket.create_connection(listener.getsockname()) as theirs:
            ours = ClientSocket.adopt(listener.accept()[0])
            ours.is_stream = True
            with pytest.raises(BrokenPipeError, match="too slowly"):
                ours.sendall(LARGE * 3)
            assert ours.fileno() == -1
            with pytest.raises(ConnectionResetError):
                received(theirs, 3 * len(LARGE))


def test_a_client_that_does_not_read_is_disconnected_at_its_deadline(ends):
    ours, _ = ends
    ours.sendall(LARGE)
    connection = Connection(ours, seconds=0.0)
    connection.poll()
    assert connection.events == ["lost"]
    assert ours.fileno() == -1
    assert not connection.poller.get_map()


def test_before_its_deadline_a_client_may_pause(ends):
    ours, _ = ends
    ours.sendall(LARGE)
    connection = Connection(ours, seconds=LONG_SECONDS)
    connection.poll()
    assert connection.events == []


def test_a_client_that_has_left_is_noticed(ends):
    ours, theirs = ends
    ours.sendall(LARGE)
    connection = Connection(ours, seconds=LONG_SECONDS)
    theirs.close()
    connection.poll()
    assert connection.events == ["lost"]


class Reader:
    """The connection of a client that reads `pace` bytes in each round of the poller."""

    client = ("192.0.2.1", 50_000)

    def __init__(self, pace: int, name: str = "") -> None:
        self.pace = pace
        self.name = name
        self.sock = self
        self.unsent_bytes = 10 * PIECE_BYTES

    def send_unsent(self) -> int:
        sent = min(self.pace, self.unsent_bytes)
        self.unsent_bytes -= sent
        return sent

    def setblocking(self, flag: bool) -> None: ...

    def reset(self) -> None: ...


class Rounds:
    """A poller to whose connections one can always write, and a clock that it advances."""

    def __init__(self) -> None:
        self.callbacks: dict[Any, Callable[[Any], None]] = {}
        self.seconds = 1000.0

    def register(self, sock: Any, _: int, callback: Callable[[Any], None]) -> None:
        self.callbacks[sock] = callback

    def unregister(self, sock: Any) -> None:
        del self.callbacks[sock]

    def next(self, *, seconds: float = 1.0) -> None:
        self.seconds += seconds
        for sock, callback in list(self.callbacks.items()):
            callback(sock)


@pytest.fixture
def rounds(monkeypatch) -> Rounds:
    poller = Rounds()
    monkeypatch.setattr(time, "monotonic", lambda: poller.seconds)
    return poller


@pytest.mark.parametrize(
    ("pace", "event"),
    [(PIECE_BYTES // 9, "sent"), (PIECE_BYTES // 11, "lost"), (1, "lost")],
    ids=["steady", "too slow", "a byte a second"],
)
def test_a_client_has_its_time_for_each_piece_and_not_for_each_byte(rounds, pace, event):
    events: list[str] = []
    unread = UnreadAnswers(rounds, seconds=10.0, when_lost=lambda _: events.append("lost"))
    unread.add(Reader(pace), lambda: events.append("sent"))
    while not events:
        rounds.next()
        unread.close_expired()
    assert events == [event]


def test_the_client_with_the_earliest_deadline_is_disconnected_first(rounds):
    lost: list[str] = []
    unread = UnreadAnswers(rounds, seconds=10.0, when_lost=lambda conn: lost.append(conn.name))
    first = Reader(PIECE_BYTES, "has read a piece")
    for reader in (first, Reader(0, "has read nothing")):
        unread.add(reader, lambda: None)
    rounds.next(seconds=6)
    first.pace = 0
    rounds.next(seconds=5)
    unread.close_expired()
    assert lost == ["has read nothing"]
    rounds.next(seconds=5)
    unread.close_expired()
    assert lost == ["has read nothing", "has read a piece"]
