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

from mes.server.connection import (
    BareLineFeed,
    BodyTooLarge,
    ConnectRefused,
    NotARequest,
    RequestReader,
)

HEAD = b"POST / HTTP/1.1\r\nHost: mes\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read_from(sock: socket.socket) -> RequestReader:
    return RequestReader(sock, BoundedSemaphore(1), max_body_bytes=1000)


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
    reader = read_from(ours)
    for piece, expected in zip(pieces, complete, strict=True):
        theirs.sendall(piece)
        assert reader.gather() is expected
    assert reader.buf.getvalue() == b"".join(pieces)


@pytest.mark.parametrize(
    ("piece", "error"),
    [(b"a" * 40_000, LimitRequestLine), (HEAD + b"A: b\r\n" * 9000, LimitRequestHeaders)],
)
def test_a_head_without_an_end_is_refused(ends, piece, error):
    ours, theirs = ends
    theirs.setblocking(False)
    theirs.send(piece)
    with pytest.raises(error):
        gather_all(read_from(ours))


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (b"CONNECT mes:443 HTTP/1.1\r\n", ConnectRefused),
        (b"CONNECT mes:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n", ConnectRefused),
        (b"GET /health\r\n", NotARequest),
        (b"GET /health\n", BareLineFeed),
        (b"GET /health HTTP/1.2\r\n", NotARequest),
        (b"GET /health HTTP/2.0\r\n", NotARequest),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotARequest),
        (b"get /health HTTP/1.1\r\n", NotARequest),
        (b"SSH-2.0-OpenSSH_9.0\r\n", NotARequest),
        (b"\x16\x03\x01\x02\x00\x01\x00", NotARequest),
        (b"GET /health HTTP/1.1\nHost: mes\n\n", BareLineFeed),
        (b"GET /health HTTP/1.1\r\nHost: mes\nA: b", BareLineFeed),
        (HEAD + b"\n", BareLineFeed),
    ],
)
def test_a_start_that_no_request_has_is_refused_before_the_rest_arrives(ends, piece, error):
    ours, theirs = ends
    theirs.sendall(piece)
    with pytest.raises(error):
        read_from(ours).gather()


@pytest.mark.parametrize(
    "start",
    [b"G", b"\r", b"\r\n", b"\r\nGET / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\nA: b\r", b"CONNECT /"],
)
def test_the_start_of_a_valid_request_is_waited_for(ends, start):
    ours, theirs = ends
    theirs.sendall(start)
    assert read_from(ours).gather() is False


def test_line_feeds_in_a_body_are_not_those_of_the_head(ends):
    ours, theirs = ends
    theirs.sendall(HEAD + b"Content-Length: 4\r\n\r\n\na\n\n")
    assert read_from(ours).gather() is True


def test_a_chunk_larger_than_any_body_is_not_waited_for(ends):
    ours, theirs = ends
    reader = read_from(ours)
    reader.deadline = time.monotonic() + 30
    theirs.sendall(b"{}")
    assert reader.chunk(2**72) == b"{}"
    with pytest.raises(BodyTooLarge):
        reader.chunk(2**72)


def test_a_client_that_has_disconnected_is_noticed(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ConnectionError):
        read_from(ours).gather()


def test_an_incomplete_request_is_left_to_the_application(ends):
    ours, theirs = ends
    theirs.sendall(HEAD + b"Content-Length: 4\r\n\r\nabc")
    reader = read_from(ours)
    assert reader.gather() is False
    theirs.close()
    assert reader.gather() is True


def test_bytes_that_have_arrived_are_read_although_no_thread_may_wait(ends):
    ours, theirs = ends
    reader = read_from(ours)
    theirs.sendall(b"here")
    assert reader.chunk() == b"here"
    with pytest.raises(TimeoutError):
        reader.chunk()


def test_the_deadline_applies_to_a_client_that_sends_slowly(ends):
    ours, theirs = ends
    reader, began = read_from(ours), time.monotonic()
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
