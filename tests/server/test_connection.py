"""The request reader: which requests are complete, and how long a thread waits for the rest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import BoundedSemaphore

import pytest
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine

from mes.server.connection import RequestReader

HEAD = b"POST / HTTP/1.1\r\nHost: mes\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("pieces", "complete"),
    [
        ([b"GET / HTTP/1.1\r\n", b"\r\n"], [False, True]),
        ([b"G", b"ET / HTTP/1.1\r\n\r", b"\n"], [False, False, True]),
        ([HEAD + b"Content-Length: 4\r\n\r\n", b"ab", b"cd"], [False, False, True]),
        ([HEAD + b"content-length:4\r\n\r\nabcd"], [True]),
        ([HEAD + b"Content-Length: 40000\r\n\r\n"], [True]),
        ([HEAD + b"Content-Length: 99999999999999999999\r\n\r\n"], [True]),
        ([HEAD + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"], [True]),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], [True]),
        ([HEAD + b"X-Content-Length: 4\r\n\r\n"], [True]),
    ],
)
def test_a_request_is_complete_when_no_thread_has_to_wait_for_its_client(ends, pieces, complete):
    ours, theirs = ends
    reader = RequestReader(ours, BoundedSemaphore(1))
    for piece, expected in zip(pieces, complete, strict=True):
        theirs.sendall(piece)
        assert reader.gather() is expected
    assert reader.buf.getvalue() == b"".join(pieces)


@pytest.mark.parametrize(
    ("piece", "error"),
    [(b"a" * 40_000, LimitRequestLine), (b"a\r\n" * 20_000, LimitRequestHeaders)],
)
def test_a_head_without_an_end_is_refused(ends, piece, error):
    ours, theirs = ends
    theirs.setblocking(False)
    theirs.send(piece)
    with pytest.raises(error):
        gather_all(RequestReader(ours, BoundedSemaphore(1)))


def test_a_client_that_has_disconnected_is_noticed(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ConnectionError):
        RequestReader(ours, BoundedSemaphore(1)).gather()


def test_an_incomplete_request_is_left_to_the_application(ends):
    ours, theirs = ends
    theirs.sendall(HEAD + b"Content-Length: 4\r\n\r\nabc")
    reader = RequestReader(ours, BoundedSemaphore(1))
    assert reader.gather() is False
    theirs.close()
    assert reader.gather() is True


def test_bytes_that_have_arrived_are_read_although_no_thread_may_wait(ends):
    ours, theirs = ends
    reader = RequestReader(ours, BoundedSemaphore(1))
    theirs.sendall(b"here")
    assert reader.chunk() == b"here"
    with pytest.raises(TimeoutError):
        reader.chunk()


def test_the_deadline_applies_to_a_client_that_sends_slowly(ends):
    ours, theirs = ends
    reader, began = RequestReader(ours, BoundedSemaphore(1)), time.monotonic()
    reader.deadline = began + 0.5
    dripping = threading.Thread(target=drip, args=(theirs, began + 10))
    dripping.start()
    with pytest.raises(TimeoutError):
        read_for_ever(reader)
    assert time.monotonic() - began < 9
    ours.shutdown(socket.SHUT_RDWR)
    dripping.join()


def drip(sock: socket.socket, until: float) -> None:
    with suppress(OSError):
        while time.monotonic() < until:
            sock.sendall(b"x")
            time.sleep(0.02)


def read_for_ever(reader: RequestReader) -> None:
    while reader.chunk():
        pass


def gather_all(reader: RequestReader) -> None:
    while not reader.gather():
        pass
