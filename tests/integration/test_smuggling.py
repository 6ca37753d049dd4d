"""Request smuggling: a second request inside the body or head of the first is never served."""

from __future__ import annotations

import itertools
import socket

import pytest

from tests.integration.helpers import Call
from tests.integration.smuggling import CLEANED, REFUSED
from tests.support.nginx import NEEDED, Nginx
from tests.support.process import wait_until

_numbers = itertools.count()


@pytest.fixture(scope="module")
def service(start):
    return start(WEB_CONCURRENCY=1)


@pytest.fixture(scope="module")
def nginx(service, tmp_path_factory):
    with Nginx(tmp_path_factory.mktemp("nginx"), service.port) as running:
        yield running


def exchange(server, attempt: bytes, *, half_close: bool = False) -> bytes:
    """Send these bytes. Return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(attempt)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except ConnectionResetError:
            return b""


def new_paths(service, server) -> list[str]:
    """Return the paths that the service has logged since the last call of this function."""
    # A smuggled request would be logged before this one, because both take the same way.
    mark = f"/mark-{next(_numbers)}"
    Call(server, mark).answer()
    lines = wait_until(
        lambda: _until(mark, [x.get("path", "") for x in service.log_lines("request")])
    )
    marks = [n for n, path in enumerate(lines) if path.startswith("/mark-")]
    return lines[marks[-2] + 1 : -1]


def _until(mark: str, paths: list[str]) -> list[str]:
    return paths if paths[-1] == mark else []


@pytest.fixture(autouse=True)
def _mark_start(service):
    Call(service, f"/mark-{next(_numbers)}").answer()


@NEEDED
@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_nginx_rejects_it_and_the_service_never_receives_it(service, nginx, attempt):
    answer = exchange(nginx, attempt)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer[:10] in (b"", b"HTTP/1.1 4", b"HTTP/1.1 5")
    assert not answer.startswith(b"HTTP/1.1 500")
    assert new_paths(service, nginx) == []


@NEEDED
@pytest.mark.parametrize("attempt", CLEANED.values(), ids=CLEANED)
def test_nginx_forwards_one_clean_request(service, nginx, attempt):
    follower = b"GET /follower HTTP/1.1\r\nHost: mes\r\nConnection: close\r\n\r\n"
    answer = exchange(nginx, attempt + follower)
    assert answer.count(b"HTTP/1.1 ") == 2
    first, second = new_paths(service, nginx)
    assert first != "/smuggled"
    assert second == "/follower"


@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_without_nginx_nothing_is_smuggled_either(service, attempt):
    exchange(service, attempt, half_close=True)
    assert "/smuggled" not in new_paths(service, service)
