"""The HTTP server answers as Ollama does; no model is needed for these tests."""

import http.client
import json
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from werkzeug.test import EnvironBuilder

from mes.embedded.server import Application

from .conftest import Program


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("empty"))
    yield program
    program.end()
    assert program.process.communicate() == ("", "")  # no request is worth a line in the log


@pytest.fixture(scope="module", name="http")
def _http(server):
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_the_root_answers_ollama_is_running(http):
    answer = http.get("/")
    assert (answer.text, answer.headers["content-type"]) == (
        "Ollama is running",
        "text/plain; charset=utf-8",
    )
    head = http.head("/")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "17")


def test_the_version_names_runtime_and_engine(http):
    pytest.importorskip("xllamacpp")
    assert http.get("/api/version").json() == {
        "version": "2026.10.11549",
        "runtime": "mes-embedded",
    }


def test_an_empty_store_lists_nothing(http):
    assert http.get("/api/tags").json() == http.get("/api/ps").json() == {"models": []}


def test_unknown_paths_and_wrong_methods_are_plain_text(http):
    missing, wrong = http.get("/api/nope"), http.get("/api/generate")
    assert (missing.status_code, missing.text) == (404, "404 page not found")
    assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")
    assert missing.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/generate", b"", 400, "missing request body"),
        (
            "/api/generate",
            b'{"model": bad}',
            400,
            "invalid character 'b' looking for beginning of value",
        ),
        ("/api/generate", b'{"prompt": "x"}', 404, "model '' not found"),
        ("/api/generate", b'{"model": "bad name!"}', 400, "invalid model name"),
        ("/api/generate", b'{"model": "nope"}', 404, "model 'nope' not found"),
        ("/api/chat", b'{"messages": []}', 400, "model is required"),
        ("/api/embed", b'{"model": "nope"}', 404, 'model "nope" not found, try pulling it first'),
        ("/api/show", b'{"model": "nope"}', 404, "model 'nope:latest' not found"),
    ],
)
def test_errors_have_ollamas_messages(http, path, body, status, message):
    answer = http.post(path, content=body)
    assert (answer.status_code, answer.json()) == (status, {"error": message})


def answer_on(connection):
    """Read one answer from a connection; return its status and its text."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read().decode()


def connect(client):
    return socket.create_connection(("127.0.0.1", client.base_url.port))


def test_a_connection_serves_many_requests_also_after_errors(http):
    with connect(http) as connection:
        for path, status in [("/api/nope", 404), ("/api/chat", 400), ("/api/chat", 400)]:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
            connection.sendall(head.encode())
            assert answer_on(connection)[0] == status


def test_a_chunked_body_is_read(http):
    answer = http.post("/api/chat", content=iter([b'{"mod', b'el": "nope"}']))
    assert answer.json() == {"error": "model 'nope' not found"}


def test_a_body_over_the_limit_is_refused(http):
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
    with connect(http) as connection:
        connection.sendall(head.encode())
        assert answer_on(connection)[0] == 413
        assert connection.recv(4096) == b""


@pytest.mark.parametrize("size", ["-1", "+2", "0x18", "1_8", "", " 2", "g", "1" * 20])
def test_an_invalid_chunk_size_is_refused(http, size):
    head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(http) as connection:
        connection.sendall(f"{head}{size}\r\n{{}}\r\n0\r\n\r\n".encode())
        assert answer_on(connection)[0] in (400, 413)


@pytest.mark.parametrize("length", ["2", "-1", "+2", "2_0", "2, 2"])
def test_a_body_with_two_lengths_or_an_invalid_one_is_refused(http, length):
    coding = "Transfer-Encoding: chunked\r\n" if length == "2" else ""
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{coding}"
    with connect(http) as connection:
        connection.sendall(f"{head}\r\n0\r\n\r\n".encode())
        status, text = answer_on(connection)
        assert status == 400
        assert json.loads(text)["error"]


def test_requests_that_do_not_arrive_occupy_no_threads(http, server):
    def threads():
        return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    before = threads()
    with ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(connect(http))
            connection.sendall(b"POST /api/chat HTTP/1.1\r\nHost: local"[: number % 40 + 1])
        assert http.get("/api/version").status_code == 200
        assert threads() < before + 10


class BrokenBody:
    def __init__(self, error):
        self._error = error

    def read(self, size=-1):
        raise self._error


def respond(body):
    """Return the status and the answer of the application to a request with this body."""
    statuses = []
    environ = EnvironBuilder(
        path="/api/chat", method="POST", base_url="http://localhost"
    ).get_environ()
    environ |= {"wsgi.input": body, "wsgi.input_terminated": True, "gunicorn.socket": None}
    answer = Application(None, "127.0.0.1")(environ, lambda status, *_: statuses.append(status))
    return statuses[0][:3], b"".join(answer)


def test_a_body_that_does_not_arrive_in_time_is_answered():
    status, answer = respond(BrokenBody(TimeoutError()))
    assert (status, json.loads(answer)) == (
        "408",
        {"error": "the request body did not arrive in time"},
    )


def test_a_body_that_breaks_off_closes_the_connection():
    with pytest.raises(BrokenPipeError):
        respond(BrokenBody(ConnectionResetError()))


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(http, is_reset):
    with connect(http) as connection:
        head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"{" * 100_000)
        assert http.get("/api/version").status_code == 200
        linger = struct.pack("ii", is_reset, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    # An error would be in the log, whose emptiness the fixture checks.
    assert http.get("/api/version").status_code == 200


@pytest.mark.parametrize("path", ["/api/chat", "/api/pull"])
def test_the_origin_is_checked_before_the_body_is_read(http, path):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n"
    with connect(http) as connection:
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        assert answer_on(connection)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://192.168.1.5"},
        {"Origin": "http://box.local"},
        {"Origin": "http://box.internal"},
        {"Host": "evil.example"},
    ],
)
def test_a_web_page_of_another_site_is_refused(http, headers):
    assert http.get("/api/tags", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["box.local", "box.internal", "a.localhost", "192.168.1.5"])
def test_a_name_that_may_be_of_another_machine_is_refused(http, host):
    answer = http.get("/api/tags", headers={"Host": f"{host}:11435"})
    assert answer.status_code == 403
    assert f"the host {host} is not allowed" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.9:11435", "[::1]:11435"])
def test_localhost_is_answered_in_all_spellings(http, host):
    assert http.get("/api/tags", headers={"Host": host}).status_code == 200


def test_a_web_page_of_this_machine_is_allowed(http):
    assert http.get("/api/tags", headers={"Origin": "http://localhost:3000"}).status_code == 200


CHANGES = [("POST", "/api/pull"), ("POST", "/api/copy"), ("DELETE", "/api/delete")]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_no_web_page_changes_the_models(http, method, path):
    answer = http.request(method, path, headers={"Origin": "http://localhost:3000"}, json={})
    assert answer.status_code == 403
    assert http.request(method, path, json={}).status_code == 400


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """A client of a server that listens on all addresses."""
    # Gunicorn would not start with such a WEB_CONCURRENCY, which is a setting of MES.
    program = Program(tmp_path_factory.mktemp("empty"), "--host", "0.0.0.0", WEB_CONCURRENCY="")
    with httpx.Client(base_url=f"http://127.0.0.1:{program.port}") as client:
        yield client
    program.end()


@pytest.mark.parametrize("host", ["192.168.1.5", "box.local", "box.internal", "evil.example"])
def test_a_server_for_other_machines_lets_them_use_but_not_change_models(exposed, host):
    headers = {"Host": host}
    assert exposed.get("/api/tags", headers=headers).status_code == 200
    assert exposed.post("/api/chat", headers=headers, json={"model": "nope"}).status_code == 404
    for method, path in CHANGES:
        assert exposed.request(method, path, headers=headers, json={}).status_code == 403
        assert exposed.request(method, path, json={}).status_code == 400
