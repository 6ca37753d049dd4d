"""The HTTP server answers as Ollama does; no model is needed for these tests."""

import socket

import httpx
import pytest

from .conftest import Program


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("empty"))
    with httpx.Client(base_url=program.url) as client:
        yield client
    program.end()


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


def test_a_connection_serves_many_requests_also_after_errors(http):
    with socket.create_connection(("127.0.0.1", http.base_url.port)) as connection:
        for path, status in [("/api/nope", b"404"), ("/api/chat", b"400"), ("/api/chat", b"400")]:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
            connection.sendall(head.encode())
            assert connection.recv(4096).split()[1] == status


def test_a_chunked_body_is_read(http):
    answer = http.post("/api/chat", content=iter([b'{"mod', b'el": "nope"}']))
    assert answer.json() == {"error": "model 'nope' not found"}


def test_a_body_over_the_limit_is_refused(http):
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", http.base_url.port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        assert connection.recv(4096) == b""


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}]
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
