"""A client that does not read its answer keeps neither a thread nor a slot of the engine."""

import errno
import http.client
import json
import socket

import ollama
import pytest

from .conftest import MODEL, cpu_seconds, until

# As on a real network. With the large segments of a loopback interface the system keeps 2.5 MB.
SEGMENT_BYTES = 536
BUFFER_BYTES = 2048
# Each token's line has about 3 KB.
STREAM = {"logprobs": True, "top_logprobs": 20, "options": {"num_predict": -1, "ignore_eos": True}}


@pytest.fixture(scope="module")
def program(start):
    """Start a program with one slot, whose clients have little time to read."""
    program = start(EMBEDDED_WRITE_TIMEOUT="0.5s", OLLAMA_NUM_PARALLEL="1")
    program.client.generate(model=MODEL, keep_alive=-1)
    yield program
    program.end()


def connect(program):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    sock.connect(("127.0.0.1", program.port))
    return sock


def request(path, **body):
    raw = json.dumps({"model": MODEL, **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def test_a_stream_that_is_not_read_ends_at_its_deadline_and_frees_the_slot(program):
    (engine,) = program.children
    before = cpu_seconds(engine)
    with connect(program) as sock:
        sock.sendall(request("/api/generate", prompt="Count", **STREAM))
        until(lambda: cpu_seconds(engine) > before)  # it has the slot
        other = ollama.Client(program.url, timeout=20)
        answer = other.generate(MODEL, "Hello", options={"num_predict": 1})
        assert answer.eval_count == 1
        response = http.client.HTTPResponse(sock)
        response.begin()
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()


def test_answers_that_are_not_read_end_at_their_deadline(program):
    with connect(program) as sock:
        sock.sendall(request("/api/show") * 300)
        until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)
