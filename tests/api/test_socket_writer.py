"""SocketWriter: writes in order as far as there is room, and blocks only in `flush`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mes.api.socket_writer import SocketWriter
from mes.server.client_socket import ClientSocket

LARGE = b"x" * 10_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    server_end, client_end = socket.socketpair()
    with server_end, client_end:
        client_end.settimeout(10)
        yield server_end, client_end


def opened(sock: socket.socket, *, in_chunks: bool = False) -> SocketWriter:
    socket_writer = SocketWriter(sock, in_chunks=in_chunks)
    socket_writer.open()
    return socket_writer


def read(sock: socket.socket, size: int) -> bytes:
    with sock.makefile("rb") as file:
        return file.read(size)


def test_nothing_is_taken_before_the_server_has_sent_the_head(ends):
    socket_writer = SocketWriter(ends[0], in_chunks=False)
    assert not socket_writer.take(b"early")
    socket_writer.open()
    assert socket_writer.take(b"now")
    assert ends[1].recv(100) == b"now"


def test_nothing_is_taken_while_the_server_writes(ends):
    socket_writer = opened(ends[0])
    socket_writer.claim()
    assert not socket_writer.take(b"between")
    assert not socket_writer.begin(lambda: pytest.fail("the head is sent"))
    socket_writer.open()
    assert socket_writer.take(b"after")
    assert ends[1].recv(100) == b"after"


def test_the_head_is_sent_once_and_data_follows_it(ends):
    socket_writer = SocketWriter(ends[0], in_chunks=False)
    assert socket_writer.begin(lambda: ends[0].sendall(b"head "))
    assert not socket_writer.begin(lambda: ends[0].sendall(b"head "))
    assert socket_writer.take(b"data")
    assert read(ends[1], 9) == b"head data"


def test_no_head_is_sent_without_room(ends):
    with suppress(BlockingIOError):
        while ends[0].send(LARGE, socket.MSG_DONTWAIT):
            pass
    socket_writer = SocketWriter(ends[0], in_chunks=False)
    assert not socket_writer.begin(lambda: pytest.fail("the head is sent"))


def frames_in(received: bytes) -> Iterator[bytes]:
    """Yield the data of each chunk. Raise ValueError or AssertionError if the framing is broken."""
    while received:
        size, _, rest = received.partition(b"\r\n")
        data, received = rest[: int(size, 16)], rest[int(size, 16) :]
        assert received.startswith(b"\r\n")
        received = received.removeprefix(b"\r\n")
        yield data


class PartialSocket:
    """A socket that sends at most ten bytes at a time, and lets other threads run after it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sendall, self.fileno = sock.sendall, sock.fileno

    def send(self, data: bytes, flags: int) -> int:
        sent = self._sock.send(data[:10], flags)
        time.sleep(0.0001)
        return sent


def test_threads_that_write_at_the_same_time_do_not_mix_their_data(ends):
    socket_writer = opened(PartialSocket(ends[0]), in_chunks=True)  # type: ignore[arg-type]
    pieces = {letter: [letter * size for size in range(1, 40)] for letter in (b"a", b"b")}

    def write(letter: bytes) -> None:
        for piece in pieces[letter]:
            while not socket_writer.take(piece):
                time.sleep(0.0001)

    received = bytearray()

    def receive() -> None:
        while piece := ends[1].recv(1000):
            received.extend(piece)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in pieces]
    reader = threading.Thread(target=receive)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    socket_writer.flush()
    ends[0].shutdown(socket.SHUT_WR)
    reader.join()
    frames = list(frames_in(bytes(received)))
    for letter, sent in pieces.items():
        assert [each for each in frames if each.startswith(letter)] == sent


def test_without_a_socket_all_goes_through_the_server():
    socket_writer = SocketWriter(None, in_chunks=True)
    socket_writer.open()
    assert not socket_writer.take(b"anything")
    assert socket_writer.can_take_more()
    socket_writer.flush()
    socket_writer.shut_down()


def test_chunks_are_framed_as_the_server_frames_them(ends):
    assert opened(ends[0], in_chunks=True).take(b"0123456789ab")
    assert ends[1].recv(100) == b"C\r\n0123456789ab\r\n"


def test_data_without_room_is_sent_before_later_data(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(LARGE)  # partly: as far as there is room
    assert not socket_writer.take(b"more")
    assert not socket_writer.can_take_more()
    got = bytearray()
    while not socket_writer.take(b"!"):
        got += ends[1].recv(1_000_000)
    while len(got) <= len(LARGE):
        got += ends[1].recv(1_000_000)
    assert bytes(got) == LARGE + b"!"


def test_flush_waits_for_the_rest(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(LARGE)
    flushing = threading.Thread(target=socket_writer.flush)
    flushing.start()
    assert read(ends[1], len(LARGE)) == LARGE
    flushing.join(10)
    assert socket_writer.take(b"!")
    assert ends[1].recv(1) == b"!"


def test_a_full_socket_takes_nothing(ends):
    server_end, _ = ends
    with suppress(BlockingIOError):
        while server_end.send(LARGE, socket.MSG_DONTWAIT):
            pass
    socket_writer = opened(server_end)
    assert not socket_writer.take(b"late")
    socket_writer.flush()  # has nothing to wait for


def test_a_disconnected_client_takes_nothing_and_blocks_nothing(ends):
    server_end, client_end = ends
    socket_writer = opened(server_end)
    assert socket_writer.take(LARGE)
    client_end.close()
    assert not socket_writer.take(b"more")
    socket_writer.flush()


def test_shutting_down_wakes_a_thread_that_waits_for_room(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(LARGE)
    flushing = threading.Thread(target=socket_writer.flush)
    flushing.start()
    socket_writer.shut_down()
    flushing.join(10)
    assert not flushing.is_alive()


def test_the_server_waits_for_the_client_of_a_stream_and_for_no_other(ends):
    with ClientSocket.adopt(ends[0]) as sock:
        socket_writer = SocketWriter(sock, in_chunks=True)
        socket_writer.begin_stream()
        sending = threading.Thread(target=sock.sendall, args=(LARGE,))
        sending.start()
        assert ends[1].recv(1) == b"x"
        assert sending.is_alive()
        rest = threading.Thread(target=read, args=(ends[1], len(LARGE) - 1))
        rest.start()
        sending.join(30)
        assert sock.unsent_bytes == 0
        socket_writer.end_stream()
        rest.join(30)
        sock.sendall(LARGE)  # would block for ever
        assert sock.unsent_bytes > 0
