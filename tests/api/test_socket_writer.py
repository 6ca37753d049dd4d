"""SocketWriter: writes in order as far as there is room, and blocks only in `flush`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mes.api.streaming import SocketWriter

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
