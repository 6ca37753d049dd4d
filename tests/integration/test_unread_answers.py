"""Clients that ask and do not read: three hundred of them delay no other client."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.helpers import Call, asked, infer
from tests.support.process import wait_until
from tests.support.service import KEY, Service

MODEL = "mistral:7b"
MANY = 300
WRITE_SECONDS = 3
# Without a free thread, a request would wait for the deadlines of the unread answers: 9 s.
QUICK_SECONDS = 5
# As on a real network. With the large segments of a loopback interface the system keeps 2.5 MB.
SEGMENT_BYTES = 536
BUFFER_BYTES = 2048
OTHER_ADDRESS = "127.0.0.2"
BEARER = f"Authorization: Bearer {KEY}"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    """Start one worker with 17 threads, far fewer than there will be unread answers."""
    settings = {"WEB_CONCURRENCY": 1, "STREAM_WRITE_TIMEOUT": WRITE_SECONDS}
    return start(models={MODEL: {"max_queue": 0}}, **settings)


def connect(service: Service, *, address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.settimeout(30)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", service.port))
    return sock


def request_for(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: mes", *headers, "", "")).encode()


@contextmanager
def unread(service: Service, sent: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
    """Connect clients that send these bytes and read nothing."""
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(service)) for _ in range(count)]
        for sock in socks:
            sock.sendall(sent)
        yield socks


def read(sock: socket.socket) -> tuple[int, bytes]:
    """Read an answer to its end. Return its status and its body."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.status, answer.read()


def assert_serves(service: Service) -> None:
    found = [Call(service, path).answer() for _ in range(10) for path in ("/health", "/ready")]
    assert {answer.status for answer in found} == {200}
    assert max(answer.seconds for answer in found) < QUICK_SECONDS
    answer = asked(service, MODEL)
    assert answer.status == 200
    assert answer.seconds < QUICK_SECONDS


@pytest.mark.parametrize(
    "sent",
    [
        request_for("/docs"),
        request_for("/openapi.json"),
        request_for("/openapi.json", BEARER),
        request_for("/openapi.json", "Authorization: Bearer wrong"),
        request_for("/health") * 3000,
    ],
    ids=["page", "document", "with a key", "with a wrong key", "health"],
)
def test_unread_answers_delay_no_other_client(service, sent):
    count = MANY if len(sent) < 1000 else 20
    with unread(service, sent, count):
        assert_serves(service)
        assert_serves(service)


def test_when_there_are_many_an_address_gets_few_and_others_are_served(service):
    with unread(service, request_for("/docs")) as socks:
        refused = wait_until(lambda: service_busy(socks), why="a request is refused")
        assert 200 < len(refused) < MANY
        with connect(service, address=OTHER_ADDRESS) as other:
            other.sendall(request_for("/docs"))
            assert read(other)[0] == 200


def service_busy(socks: list[socket.socket]) -> list[socket.socket]:
    """Return the connections that got 503, if all that are not read have got their answer."""
    begun = [sock for sock in socks if peek(sock)]
    return [sock for sock in begun if b"service_busy" in peek(sock)] if len(begun) == MANY else []


def peek(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    try:
        return sock.recv(65536, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def test_a_client_that_does_not_read_is_disconnected_and_its_place_is_free_again(service):
    before = len(service.log_lines("answer_not_read"))
    with unread(service, request_for("/docs"), 3) as socks:
        wait_until(lambda: len(service.log_lines("answer_not_read")) == before + 3)
        for sock in socks:
            with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
                read(sock)
    line = service.log_lines("answer_not_read")[-1]
    assert line["address"] == "127.0.0.1"
    assert line["unsent_bytes"] > 0


def test_a_client_that_reads_slowly_and_steadily_gets_its_whole_answer(service):
    began, whole = time.monotonic(), Call(service, "/docs").answer().body
    with connect(service) as sock:
        sock.sendall(request_for("/docs", "Connection: close"))
        body = bytearray()
        while piece := sock.recv(8192):
            body += piece
            # Less than half of the time that it has for each piece of 64 KiB.
            time.sleep(len(piece) / 65536 * WRITE_SECONDS * 0.4)
    assert time.monotonic() - began > WRITE_SECONDS
    assert bytes(body).partition(b"\r\n\r\n")[2] == whole.replace(
        f"127.0.0.1:{service.port}".encode(), b"mes"
    )


def test_the_next_request_on_the_connection_is_answered_after_the_answer_was_read(service):
    with connect(service) as sock:
        sock.sendall(request_for("/openapi.json") + request_for("/health", "Connection: close"))
        _, first, second = b"".join(iter(lambda: sock.recv(65536), b"")).split(b"HTTP/1.1 200 OK")
    assert json.loads(first.partition(b"\r\n\r\n")[2])["openapi"] == "3.1.0"
    assert json.loads(second.partition(b"\r\n\r\n")[2])["status"] == "healthy"


def test_behind_a_proxy_the_addresses_of_its_clients_count(start):
    service = start(models={MODEL: {"max_queue": 0}}, WEB_CONCURRENCY=1, TRUSTED_PROXIES=1)
    with unread(service, request_for("/docs", "X-Forwarded-For: 198.51.100.7")) as socks:
        wait_until(lambda: service_busy(socks), why="a request is refused")
        with connect(service) as other:
            other.sendall(request_for("/docs", "X-Forwarded-For: 198.51.100.8"))
            assert read(other)[0] == 200
        assert_serves(service)


def test_health_is_answered_while_every_thread_is_taken(start, runtime):
    service = start(models={MODEL: {"max_queue": 0}}, WEB_CONCURRENCY=1, THREADS=1)
    slow_body = (
        f"POST /v1/inference HTTP/1.1\r\nHost: mes\r\n{BEARER}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    ).encode()
    runtime.control(first_token_ms=600_000)
    with ExitStack() as stack:
        stack.enter_context(infer(service, MODEL))
        wait_until(lambda: runtime.model(MODEL)["current"] == 1)
        stack.enter_context(unread(service, slow_body, 32))
        found = [Call(service, path).answer() for _ in range(10) for path in ("/health", "/ready")]
    assert {answer.status for answer in found} == {200}
    assert max(answer.seconds for answer in found) < QUICK_SECONDS
