"""The outlet: takes what the socket has room for, in order, and waits only if it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mes.api.streaming import SocketWriter

MUCH = b"x" * 10_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, clients = socket.socketpair()
    with ours, clients:
        clients.settimeout(10)
        yield ours, clients


def opened(sock: socket.socket, *, in_chunks: bool = False) -> SocketWriter:
    socket_writer = SocketWriter(sock, in_chunks=in_chunks)
    socket_writer.open()
    return socket_writer


def read(sock: socket.socket, size: int) -> bytes:
    with sock.makefile("rb") as file:
        return file.read(size)


def test_nothing_is_taken_before_the_server_has_begun_the_answer(ends):
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


def test_what_does_not_fit_is_sent_before_what_comes_next(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(MUCH)  # as far as there is room
    assert not socket_writer.take(b"more")
    assert not socket_writer.can_take_more()
    got = bytearray()
    while not socket_writer.take(b"!"):
        got += ends[1].recv(1_000_000)
    while len(got) <= len(MUCH):
        got += ends[1].recv(1_000_000)
    assert bytes(got) == MUCH + b"!"


def test_flush_waits_for_the_rest(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(MUCH)
    flushing = threading.Thread(target=socket_writer.flush)
    flushing.start()
    assert read(ends[1], len(MUCH)) == MUCH
    flushing.join(10)
    assert socket_writer.take(b"!")
    assert ends[1].recv(1) == b"!"


def test_a_full_socket_takes_nothing_of_what_comes_next(ends):
    ours, _ = ends
    with suppress(BlockingIOError):
        while ours.send(MUCH, socket.MSG_DONTWAIT):
            pass
    socket_writer = opened(ours)
    assert not socket_writer.take(b"late")
    socket_writer.flush()  # has nothing to wait for


def test_a_client_that_has_gone_takes_nothing_and_holds_up_nobody(ends):
    ours, clients = ends
    socket_writer = opened(ours)
    assert socket_writer.take(MUCH)
    clients.close()
    assert not socket_writer.take(b"more")
    socket_writer.flush()


def test_shutting_down_wakes_who_waits_for_room(ends):
    socket_writer = opened(ends[0])
    assert socket_writer.take(MUCH)
    flushing = threading.Thread(target=socket_writer.flush)
    flushing.start()
    socket_writer.shut_down()
    flushing.join(10)
    assert not flushing.is_alive()
