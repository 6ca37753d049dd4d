"""The service behind nginx with the shipped configuration: forwarding, rejections, own errors."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from base64 import b64encode
from contextlib import ExitStack

import pytest
import requests

from mes.config.settings import load
from tests.integration.helpers import (
    Call,
    answers,
    asked,
    burst,
    connections,
    infer,
    percentile,
    wait_until_at_rest,
    wait_until_held,
)
from tests.integration.test_unread_answers import connect, read, request_for
from tests.ollama.scripted import END, STREAM, ScriptedRuntime, chunk, head, whole
from tests.ollama.scripted import answers as script_of
from tests.support.nginx import NEEDED, SHIPPED, Nginx, with_tls
from tests.support.process import free_port, wait_until
from tests.support.service import KEY

MODEL = "hf.co/org/model:q4"
LARGEST_BODY = load({}, dotenv=None).max_body_bytes
WAITS = 600_000
WITH_KEY = {"Authorization": f"Bearer {KEY}"}

pytestmark = [NEEDED, pytest.mark.usefixtures("clean")]


@pytest.fixture(scope="module")
def service(start):
    return start(models={MODEL: {"max_concurrent": 2, "max_queue": 8, "ollama_tag": "phi3:mini"}})


@pytest.fixture(scope="module")
def nginx(service, tmp_path_factory):
    with Nginx(tmp_path_factory.mktemp("nginx"), service.port) as running:
        yield running


@pytest.fixture
def scripted(tmp_path):
    """Return a function that starts nginx in front of an upstream which plays scripts."""
    started = []

    def start(*scripts):
        upstream = ScriptedRuntime(*scripts)
        started.append(upstream)
        started.append(Nginx(tmp_path, int(upstream.url.rpartition(":")[2])))
        return started[-1], upstream

    yield start
    for each in reversed(started):
        each.close()


def test_an_answer_arrives_under_the_clients_own_id(nginx):
    body = {"model_id": MODEL, "prompt": "Hello"}
    headers = {**WITH_KEY, "X-Request-ID": "mine-1"}
    answer = requests.post(f"{nginx.url}/v1/inference", json=body, headers=headers, timeout=30)
    assert answer.json()["success"]
    assert answer.headers["X-Request-ID"] == "mine-1"


def test_clients_that_do_not_read_delay_no_other_client(nginx):
    with ExitStack() as unread:
        for _ in range(300):
            sock = unread.enter_context(connect(nginx))
            sock.sendall(request_for("/docs"))
        found = [Call(nginx, path).answer() for _ in range(10) for path in ("/health", "/docs")]
        assert {answer.status for answer in found} == {200}
        with connect(nginx) as without_key:
            without_key.sendall(request_for("/docs"))
            assert read(without_key)[0] == 200
        assert asked(nginx, MODEL).status == 200


@pytest.mark.parametrize("path", ["/v1/models/hf.co/org/model:q4", "/v1/models/hf.co%2Forg%3Aq4"])
def test_paths_arrive_as_they_were_sent(scripted, path):
    nginx, upstream = scripted(script_of(whole(b"{}")))
    assert Call(nginx, path).answer().status == 200
    assert upstream.asked[0].line == f"GET {path} HTTP/1.1"


@pytest.mark.parametrize("encode", [chunk, bytes], ids=["in-chunks", "until-it-closes"])
def test_a_stream_arrives_piece_by_piece(scripted, encode):
    first_was_read = threading.Event()

    def stream(peer):
        peer.read_request()
        peer.send(STREAM if encode is chunk else head())
        peer.send(encode(b"first\n"))
        assert first_was_read.wait(30)
        peer.send(encode(b"second\n") + (END if encode is chunk else b""))

    nginx, _ = scripted(stream)
    with requests.get(nginx.url, stream=True, timeout=20) as answer:
        lines = answer.iter_lines(chunk_size=None)
        assert next(lines) == b"first"
        first_was_read.set()
        assert next(lines) == b"second"


def test_a_killed_service_is_reported_as_lost_without_waiting(service, nginx, runtime):
    runtime.control(first_token_ms=WAITS)
    with infer(nginx, MODEL) as call:
        wait_until_held(service, permits=1, tickets=0)
        for pid in service.worker_pids():
            service.kill_worker(pid)
        answer = call.answer(30)
    assert (answer.status, answer.code) == (502, "service_lost")
    assert int(answer.headers["retry-after"]) > 0
    runtime.control(first_token_ms=0)
    wait_until(lambda: asked(nginx, MODEL).status == 200, seconds=30)


@pytest.mark.parametrize(("proxies", "status"), [(1, 200), (0, 421)])
def test_host_names_of_clients_are_answered_if_the_service_trusts_nginx(
    start, tmp_path, proxies, status
):
    service = start(TRUSTED_PROXIES=proxies, ALLOWED_HOSTS="")
    with Nginx(tmp_path, service.port) as nginx:
        answer = requests.get(f"{nginx.url}/health", headers={"Host": "mes.example"}, timeout=20)
    assert answer.status_code == status


def test_errors_of_nginx_look_like_errors_of_the_service(nginx, tmp_path):
    not_found = Call(nginx, "/nowhere").answer()
    assert not_found.code == "not_found"
    with Nginx(tmp_path, free_port()) as alone:
        lost = Call(alone, "/health").answer()
    assert lost.code == "service_lost"
    assert list(lost.json()) == list(not_found.json())
    assert lost.json()["status"] == lost.status == 502
    assert lost.json()["request_id"] == lost.headers["x-request-id"]


def test_a_body_too_large_is_refused_as_the_service_would(service, nginx):
    def rejection(server):
        body = b" " * LARGEST_BODY + b"{}"
        headers = {**WITH_KEY, "Content-Type": "application/json", "X-Request-ID": 'harm"ful'}
        answer = requests.post(f"{server.url}/v1/inference", data=body, headers=headers, timeout=30)
        problem = answer.json()
        return answer.status_code, problem["code"], problem["detail"], list(problem)

    assert rejection(nginx) == rejection(service)
    assert rejection(nginx)[:2] == (413, "content_too_large")


def test_a_transfer_encoding_is_refused_as_the_service_would(service, nginx):
    def rejection(server):
        headers = {**WITH_KEY, "Transfer-Encoding": "br"}
        answer = requests.get(f"{server.url}/v1/models", headers=headers, timeout=30)
        return answer.status_code, answer.json()["code"], answer.json()["detail"]

    assert rejection(nginx) == rejection(service)
    assert rejection(nginx)[:2] == (501, "not_implemented")


def test_the_largest_body_that_the_service_takes_comes_through(nginx):
    body = {"model_id": MODEL, "prompt": "Hello", "unknown": ""}
    body["unknown"] = "x" * (LARGEST_BODY - len(str(body)) - 100)
    assert Call(nginx, "/v1/inference", body).answer().code == "request_invalid"


def test_a_photo_of_4_megabytes_comes_through(nginx):
    photo = b64encode(os.urandom(4_000_000)).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}},
    ]
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    answer = Call(nginx, "/v1/chat/completions", body).answer()
    assert (answer.status, answer.json()["error"]["code"]) == (400, "request_invalid")
    assert "images" in answer.json()["error"]["message"]


def test_a_client_that_hangs_up_gives_its_place_back(service, nginx, runtime):
    runtime.control(first_token_ms=WAITS)
    calls = burst(nginx, MODEL, 4)
    wait_until_held(service, permits=2, tickets=2)
    for call in calls:
        call.hang_up()
    wait_until_at_rest(service)


def test_slow_clients_delay_no_other_client(service, nginx):
    half_a_head = b"POST /v1/inference HTTP/1.1\r\nHost: mes\r\nAuthorization: Bearer"
    half_a_body = (
        f"POST /v1/inference HTTP/1.1\r\nHost: mes\r\nAuthorization: Bearer {KEY}\r\n"
        'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"model_id":'
    ).encode()
    # The 400 slow clients are enough to take all 104 threads of the service within two seconds.
    until = time.monotonic() + 2
    seen = []
    with connections(nginx, 200, half_a_head), connections(nginx, 200, half_a_body):
        while time.monotonic() < until:
            seen.append(Call(nginx, "/health").answer(30))
        assert asked(nginx, MODEL).status == 200
    assert {answer.status for answer in seen} == {200}
    # A request that waited for a thread would wait until a slow client has to be done: 10 s.
    assert percentile([answer.seconds for answer in seen], 90) < 5


def test_many_clients_are_served_over_few_connections(nginx):
    assert {answer.status for answer in answers(burst(nginx, MODEL, 10))} == {200}


def test_a_post_is_never_sent_twice(scripted):
    def answer_once_then_close(peer):
        peer.read_request()
        peer.send(whole(b"{}"))
        peer.read_request()

    nginx, upstream = scripted(answer_once_then_close, script_of(whole(b"{}")))
    with requests.Session() as session:
        assert session.get(nginx.url, timeout=20).status_code == 200
        assert session.post(nginx.url, json={}, timeout=20).status_code == 502
    assert [each.line.split()[0] for each in upstream.asked] == ["GET", "POST"]


def test_tls_is_one_edit_away(service, tmp_path):
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out"]
    subprocess.run([*make, str(certificate)], check=True, capture_output=True)
    text = with_tls(SHIPPED.read_text()).replace("/etc/nginx/tls", str(tmp_path))
    with Nginx(tmp_path, service.port, text=text) as nginx:
        url = nginx.url.replace("http:", "https:")
        assert requests.get(f"{url}/ready", verify=str(certificate), timeout=20).status_code == 200


def test_the_log_of_nginx_has_the_path_and_neither_key_nor_query(nginx):
    log = nginx.folder / "access.log"
    sent = f"POST /logged?key={KEY} HTTP/1.1\r\nHost: mes\r\nContent-Length: 99999999\r\n\r\n"
    with connections(nginx, 1, sent.encode()):
        wait_until(lambda: '"request":"POST /logged","status":413' in log.read_text())
    assert KEY not in log.read_text()
