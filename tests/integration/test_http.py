"""Malformed and unusual HTTP: the answers of gunicorn and of the application."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.process import wait_until
from tests.support.service import KEY

MODEL = "mistral:7b"
KEYED = f"Host: mes\r\nAuthorization: Bearer {KEY}\r\n"
JSON = "Content-Type: application/json\r\n"
BODY = json.dumps({"model_id": MODEL, "prompt": "Hello"}).encode()
LIMIT = 50_000

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(
        models={MODEL: {}, "org/model:1b": {}}, MAX_BODY_BYTES=LIMIT, ALLOWED_HOSTS="mes .example"
    )


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        return str(json.loads(self.body)["code"])


class RawConnection:
    """A connection on which bytes are sent unchanged."""

    def __init__(self, service: Any) -> None:
        self.sock = socket.create_connection(("127.0.0.1", service.port), timeout=20)

    def send(self, head: str, body: bytes = b"") -> None:
        self.sock.sendall(head.encode("latin-1") + b"\r\n" + body)

    def receive(self, method: str = "GET") -> Response:
        answer = http.client.HTTPResponse(self.sock, method=method)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, headers, answer.read())

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def request(service: Any, head: str, body: bytes = b"") -> Response:
    with RawConnection(service) as connection:
        connection.send(head, body)
        return connection.receive(head.split()[0])


def post(service: Any, headers: str, body: bytes = b"") -> Response:
    return request(service, f"POST /v1/inference HTTP/1.1\r\n{KEYED}{headers}", body)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (*pieces, b""))


CHUNKED = JSON + "Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (f"{JSON}", b"", 400, "malformed_request"),
        (f"{JSON}Content-Length: 0\r\n", b"", 400, "malformed_request"),
        (f"{JSON}Content-Length: -1\r\n", BODY, 400, "malformed_request"),
        (f"{JSON}Content-Length: +{len(BODY)}\r\n", BODY, 400, "malformed_request"),
        (f"{JSON}Content-Length: 9, 9\r\n", BODY, 400, "malformed_request"),
        (f"{JSON}Content-Length: 9\r\nContent-Length: 9\r\n", BODY, 400, "malformed_request"),
        (f"{JSON}Content-Length: {10**30}\r\n", b"", 413, "content_too_large"),
        (f"{JSON}Content-Length: {'9' * 5000}\r\n", b"", 400, "malformed_request"),
        (f"{JSON}Content-Length: {LIMIT + 1}\r\n", b"", 413, "content_too_large"),
        (f"{JSON}Content-Length: 5\r\n", BODY, 400, "malformed_request"),
        (f"{CHUNKED}Content-Length: 5\r\n", chunked(BODY), 400, "malformed_request"),
        (CHUNKED, chunked(b" " * LIMIT, BODY), 413, "content_too_large"),
        (CHUNKED, b"f" * 20 + b"\r\n" + b" " * LIMIT, 413, "content_too_large"),
        (CHUNKED, b"1" + b"0" * 18 + b"\r\n", 413, "content_too_large"),
        (CHUNKED, b"5\r\n123456\r\n0\r\n\r\n", 400, "malformed_request"),
        (CHUNKED, b"five\r\n", 400, "malformed_request"),
        (f"{JSON}Transfer-Encoding: gzip, chunked\r\n", chunked(BODY), 501, "not_implemented"),
        (f"{JSON}Transfer-Encoding: br\r\n", b"", 501, "not_implemented"),
        (f"{JSON}Expect: a-miracle\r\n", b"", 417, "expectation_failed"),
        (f"Content-Length: {len(BODY)}\r\n", BODY, 415, "unsupported_media_type"),
        (
            f"Content-Type: text/json\r\nContent-Length: {len(BODY)}\r\n",
            BODY,
            415,
            "unsupported_media_type",
        ),
        (
            f"{JSON}Content-Encoding: gzip\r\nContent-Length: {len(BODY)}\r\n",
            BODY,
            415,
            "unsupported_media_type",
        ),
        (f"{JSON}{JSON}Content-Length: {len(BODY)}\r\n", BODY, 400, "malformed_request"),
        (f"{JSON}Content-Length: 258\r\n", b"[" * 129 + b"]" * 129, 400, "malformed_request"),
    ],
)
def test_a_malformed_body_is_rejected(service, headers, body, status, code):
    response = post(service, headers, body)
    assert (response.status, response.code) == (status, code)


def test_a_body_that_ends_before_its_length_is_refused_and_not_taken_for_whole(service, runtime):
    with RawConnection(service) as connection:
        connection.send(
            f"POST /v1/inference HTTP/1.1\r\n{KEYED}{JSON}Content-Length: {len(BODY) + 1}\r\n",
            BODY,
        )
        connection.sock.shutdown(socket.SHUT_WR)
        response = connection.receive()
    assert (response.status, response.code) == (400, "malformed_request")
    assert runtime.model(MODEL)["generations"] == 0


@pytest.mark.parametrize("path", ["/v1/inference", "/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("headers", "body", "size"),
    [
        (f"{JSON}Content-Length: {LIMIT + 1}\r\n", b"", f"a body of {LIMIT + 1} bytes"),
        (CHUNKED, chunked(b" " * LIMIT, BODY), "a body in chunks"),
    ],
)
def test_a_body_too_large_is_refused_with_its_size_and_the_limit(
    service, path, headers, body, size
):
    response = request(service, f"POST {path} HTTP/1.1\r\n{KEYED}{headers}", body)
    assert response.status == 413
    for text in (size, f"{LIMIT} bytes", "MAX_BODY_BYTES"):
        assert text in response.body.decode()


def test_a_body_too_large_is_refused_before_it_is_sent(service):
    waited_for = f"{JSON}Content-Length: {LIMIT + 1}\r\nExpect: 100-continue\r\n"
    assert post(service, waited_for).status == 413


@pytest.mark.parametrize("pieces", [[BODY], [BODY[:7], BODY[7:]], [b" " * 40_000, BODY]])
def test_a_chunked_body_is_read(service, pieces):
    assert post(service, CHUNKED, chunked(*pieces)).status == 200


def test_a_client_that_expects_100_continue_gets_it(service):
    with RawConnection(service) as connection:
        connection.send(
            f"POST /v1/inference HTTP/1.1\r\n{KEYED}{JSON}Content-Length: {len(BODY)}\r\n"
            "Expect: 100-continue\r\n"
        )
        assert connection.sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sock.sendall(BODY)
        assert connection.receive().status == 200


@pytest.mark.parametrize(
    ("first_line", "headers", "status"),
    [
        ("GET /health HTTP/1.1", "", 400),
        ("GET /health HTTP/1.0", "", 200),
        ("GET /health HTTP/1.1", "Host:\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nHost: mes\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes mes\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes/../x\r\n", 400),
        ("GET /health HTTP/1.1", "Host: <script>\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes:99999\r\n", 400),
        ("GET /health HTTP/1.1", "Host: elsewhere\r\n", 421),
        ("GET /health HTTP/1.1", "Host: mes:8001\r\n", 200),
        ("GET /health HTTP/1.1", "Host: any.example\r\n", 200),
        ("GET /health HTTP/1.1", "Host: localhost:1\r\n", 200),
        ("GET http://mes/health HTTP/1.1", "Host: mes\r\n", 200),
        ("GET /health HTTP/2.0", "Host: mes\r\n", 400),
        ("GET /health HTTP/1.2", "Host: mes\r\n", 400),
        ("GET /health", "Host: mes\r\n", 400),
        ("GET /he alth HTTP/1.1", "Host: mes\r\n", 400),
        ("GET /\xe4 HTTP/1.1", "Host: mes\r\n", 400),
        ("get /health HTTP/1.1", "Host: mes\r\n", 400),
        ("BREW /health HTTP/1.1", "Host: mes\r\n", 405),
        ("TRACE /health HTTP/1.1", "Host: mes\r\n", 405),
        ("DELETE /health HTTP/1.1", "Host: mes\r\n", 405),
        ("CONNECT mes:443 HTTP/1.1", "Host: mes\r\n", 405),
        ("OPTIONS * HTTP/1.1", "Host: mes\r\n", 404),
        ("GET /health/ HTTP/1.1", "Host: mes\r\n", 404),
        ("GET //health HTTP/1.1", "Host: mes\r\n", 200),
        ("GET /./health HTTP/1.1", "Host: mes\r\n", 404),
        ("GET /v1//models HTTP/1.1", KEYED, 404),
        ("GET /v1/models/ HTTP/1.1", KEYED, 404),
        ("GET /v1/models/org%2Fmodel%3A1b HTTP/1.1", KEYED, 200),
        ("GET /v1/models/../status HTTP/1.1", KEYED, 404),
        ("GET /v1/models/%2e%2e/status HTTP/1.1", KEYED, 404),
        ("GET /v1/models/mistral%00:7b HTTP/1.1", KEYED, 404),
        ("GET /v1/models/mistral%0a:7b HTTP/1.1", KEYED, 404),
        ("GET /v1/models/%ff HTTP/1.1", KEYED, 404),
        (f"GET /v1/models/{'a' * 3000} HTTP/1.1", KEYED, 404),
        (f"GET /v1/models/{'a' * 5000} HTTP/1.1", KEYED, 414),
        (f"GET /v1/models/{'a' * 50_000} HTTP/1.1", KEYED, 414),
        ("GET /v1/models HTTP/1.1", KEYED + "Accept: text/html\r\n", 200),
        ("GET /v1/models HTTP/1.1", f"{KEYED}Authorization: Bearer {KEY}\r\n", 401),
        ("GET /v1/models HTTP/1.1", f"{KEYED}Authorization: Bearer x\r\n", 401),
        ("GET /v1/models HTTP/1.1", f"Host: mes\r\nX_API_Key: {KEY}\r\n", 401),
        ("GET /health HTTP/1.1", "Host: mes\r\nno-colon\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nA: b\r\n c\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nA : b\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nA: b\0c\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nA: b\nC: d\r\n", 400),
        ("GET /health HTTP/1.1", "Host: mes\r\nSCRIPT_NAME: /x\r\n", 200),
        ("GET /health HTTP/1.1", f"Host: mes\r\nA: {'b' * 9000}\r\n", 431),
        ("GET /health HTTP/1.1", "Host: mes\r\n" + "A: b\r\n" * 64, 431),
        ("GET /health HTTP/1.1", "Host: mes\r\n" + f"A: {'b' * 8000}\r\n" * 5, 431),
    ],
)
def test_each_request_gets_the_expected_status(service, first_line, headers, status):
    response = request(service, f"{first_line}\r\n{headers}")
    assert response.status == status
    if status < 400:
        return
    document = json.loads(response.body)
    if isinstance(document["error"], dict):  # an unknown path of the API, in OpenAI's format
        assert (status, document["error"]["code"]) == (404, "not_found")
    else:
        assert response.code
        assert document["status"] == status


@pytest.mark.parametrize(
    ("arrived", "status", "code"),
    [
        (b"CONNECT mes:443 HTTP/1.1\r\n", 405, "method_not_allowed"),
        (b"GET /health\r\n", 400, "malformed_request"),
        (b"GET /health HTTP/1.2\r\n", 400, "malformed_request"),
        (b"GET /health HTTP/1.1\nHost: mes\n\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "malformed_request"),
    ],
)
def test_a_start_that_no_request_has_is_refused_although_its_end_is_missing(
    service, arrived, status, code
):
    with RawConnection(service) as connection:
        connection.sock.sendall(arrived)
        response = connection.receive()
    assert (response.status, response.code) == (status, code)
    assert ("allow" in response.headers) is (status == 405)


@pytest.mark.parametrize("head", ["GET /health HTTP/1.1", "GET /nowhere HTTP/1.1", "NONSENSE"])
def test_every_response_forbids_sniffing_and_caching(service, head):
    headers = request(service, f"{head}\r\nHost: mes\r\n").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers.get("server", "gunicorn") == "gunicorn"
    assert headers["x-request-id"]


def test_head_answers_as_get_does_without_the_body(service):
    response = request(service, "HEAD /health HTTP/1.1\r\nHost: mes\r\n")
    assert (response.status, response.body) == (200, b"")
    assert int(response.headers["content-length"]) > 0


def test_options_lists_the_methods_and_needs_no_key(service):
    response = request(service, "OPTIONS /v1/inference HTTP/1.1\r\nHost: mes\r\n")
    assert (response.status, set(response.headers["allow"].split(", "))) == (
        200,
        {"OPTIONS", "POST"},
    )


def test_a_request_that_the_server_rejects_is_logged_without_its_content(service):
    response = request(service, f"GET /health HTTP/1.1\r\nAuthorization Bearer {KEY}\r\n")
    request_id = json.loads(response.body)["request_id"]
    found = wait_until(
        lambda: [line for line in service.log_lines("request") if line["request_id"] == request_id]
    )
    assert (found[0]["status"], found[0]["code"]) == (400, "malformed_request")
    assert KEY not in service.text()
    assert service.other_lines() == []


def test_requests_sent_in_one_piece_are_answered_in_order(service):
    first = f"GET /v1/models/{MODEL} HTTP/1.1\r\n{KEYED}\r\n"
    second = f"POST /v1/inference HTTP/1.1\r\n{KEYED}{JSON}Content-Length: {len(BODY)}\r\n\r\n"
    third = "GET /health HTTP/1.1\r\nHost: mes\r\n"
    with RawConnection(service) as connection:
        connection.send(first + second + BODY.decode() + third)
        with connection.sock.makefile("rb") as stream:
            answers = [_next_answer(stream) for _ in range(3)]
    assert [b'"object"' in answers[0], b'"usage"' in answers[1], b'"healthy"' in answers[2]] == [
        True
    ] * 3


def _next_answer(stream: Any) -> bytes:
    stream.readline()
    headers = http.client.parse_headers(stream)
    return bytes(stream.read(int(headers["Content-Length"])))


def test_an_unread_body_is_not_taken_for_the_next_request(service):
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: mes\r\n\r\n"
    with RawConnection(service) as connection:
        connection.send(
            f"POST /nowhere HTTP/1.1\r\nHost: mes\r\nContent-Length: {len(smuggled)}\r\n", smuggled
        )
        assert connection.receive().status == 404
        connection.send("GET /health HTTP/1.1\r\nHost: mes\r\n")
        assert connection.receive().status == 200
    assert "/smuggled" not in service.text()
