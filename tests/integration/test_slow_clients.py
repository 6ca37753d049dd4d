"""Slow clients without a proxy in front: three hundred of them delay no other client."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.helpers import Call, asked, connections
from tests.support.process import wait_until
from tests.support.service import KEY

MODEL = "mistral:7b"
MANY = 300
# A request that waited for a thread would wait until the slow clients have to be done: 10 s.
QUICK_SECONDS = 5
HEAD = f"POST /v1/inference HTTP/1.1\r\nHost: mes\r\nAuthorization: Bearer {KEY}\r\n"
JSON = "Content-Type: application/json\r\n"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    """Start one worker with 17 threads, far fewer than there will be slow clients."""
    return start(models={MODEL: {"max_queue": 0}}, WEB_CONCURRENCY=1)


@contextmanager
def clients(service, sent: str) -> Iterator[list[socket.socket]]:
    """Connect `MANY` clients that send these bytes and then do nothing."""
    with ExitStack() as stack:
        socks = []
        for _ in range(MANY):
            sock = socket.create_connection(("127.0.0.1", service.port), timeout=30)
            sock.sendall(sent.encode())
            socks.append(stack.enter_context(sock))
        yield socks


def assert_serves(service) -> None:
    found = [Call(service, "/health").answer() for _ in range(20)]
    assert {answer.status for answer in found} == {200}
    assert max(answer.seconds for answer in found) < QUICK_SECONDS
    assert asked(service, MODEL).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "P",
        HEAD,
        f"{HEAD}{JSON}Content-Length: 100\r\n\r\n{{",
        f"{HEAD}{JSON}Content-Length: 100000\r\n\r\n{{",
        f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\n5\r\n",
        f"{HEAD}{JSON}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
        f"GET /health HTTP/1.1\r\nHost: mes\r\n\r\n{HEAD}",
        "POST /v1/inference HTTP/1.1\r\nHost: mes\r\nContent-Length: 100000\r\n\r\n{",
    ],
    ids=[
        "nothing",
        "a byte",
        "half a head",
        "half a body",
        "half a large body",
        "half a chunk",
        "a body after 100 Continue",
        "a request and half a head",
        "half a body without a key",
    ],
)
def test_many_slow_clients_delay_no_other_client(service, sent):
    with clients(service, sent):
        assert_serves(service)
    assert_serves(service)


def test_a_request_that_does_not_arrive_in_time_gets_408_and_an_empty_one_is_closed(service):
    with clients(service, HEAD) as begun, clients(service, "") as silent:
        status_lines = {sock.recv(65536).split(b"\r\n", 1)[0] for sock in begun}
        assert status_lines == {b"HTTP/1.1 408 Request Timeout"}
        assert {sock.recv(65536) for sock in silent} == {b""}


def test_slow_bodies_get_408_when_there_are_too_many(service):
    slow = f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\n5\r\n"
    with clients(service, slow) as socks:
        wait_until(lambda: len(answered(socks)) >= MANY - 32)
        assert {answer.split(b"\r\n", 1)[0] for answer in answered(socks)} == {
            b"HTTP/1.1 408 REQUEST TIMEOUT"
        }
        assert_serves(service)


def answered(socks: list[socket.socket]) -> list[bytes]:
    found = []
    for sock in socks:
        sock.setblocking(False)
        try:
            found.append(sock.recv(65536, socket.MSG_PEEK))
        except BlockingIOError:
            pass
    return found


def test_more_connections_than_are_kept_end_those_that_are_slowest(service):
    # The limit is that of mes/serve/gunicorn_conf.py: the threads, and a thousand.
    with connections(service, 1100, b"P"):
        assert_serves(service)
    assert len(service.worker_pids()) == 1
    assert service.log_lines("file_descriptors_exhausted") == []


def test_a_worker_without_a_file_descriptor_left_lives_and_makes_room(service):
    (worker,) = service.worker_pids()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    # The connections of the test before may still be open.
    wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) < 100)
    in_use = len(os.listdir(f"/proc/{worker}/fd"))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (in_use + 20, limits[1]))
    try:
        with connections(service, 100, b"P"):
            wait_until(lambda: service.log_lines("file_descriptors_exhausted"))
            assert_serves(service)
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert service.worker_pids() == [worker]
