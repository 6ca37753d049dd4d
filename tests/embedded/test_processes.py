"""Engines stop when the client or the program ends, and a killed engine is reported."""

import http.client
import json
import os
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import ollama
import pytest

from .conftest import MODEL, cpu_seconds, is_alive, until

LONG = {"num_predict": 2000, "temperature": 0}
# An idle machine needs less than one second; a busy one gets more time.
LIMIT_SECONDS = 2.5


@pytest.fixture
def loaded(client):
    client.generate(model=MODEL, keep_alive=-1)
    return client


def post(program, path, **body):
    """Return a connection that has sent a request."""
    raw = json.dumps({"model": MODEL, **body}).encode()
    connection = socket.create_connection(("127.0.0.1", program.port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
    connection.sendall(head.encode() + raw)
    return connection


def slow_prompt():
    """Return a prompt that takes one thread about 10 s, different each time to avoid caches."""
    return " ".join(os.urandom(4).hex() for _ in range(200))


def pause_in(stream):
    before = time.monotonic()
    next(stream)
    return time.monotonic() - before


def is_busy(pid):
    before = cpu_seconds(pid)
    try:
        until(lambda: cpu_seconds(pid) > before, 0.15)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_the_engine_stops_when_the_client_leaves_during_the_answer(loaded, program, path, stream):
    messages = [{"role": "user", "content": "Count to 1000"}]
    body = {"prompt": "Count to 1000"} if path == "/api/generate" else {"messages": messages}
    connection = post(program, path, stream=stream, options=LONG, **body)
    (child,) = program.children
    until(lambda: is_busy(child))
    connection.close()
    assert until(lambda: not is_busy(child)) < LIMIT_SECONDS


@pytest.mark.parametrize("stream", [True, False])
def test_the_engine_stops_when_the_client_leaves_during_the_prompt(loaded, program, stream):
    body = {"prompt": slow_prompt(), "stream": stream, "options": LONG}
    connection = post(program, "/api/generate", **body)
    (child,) = program.children
    until(lambda: is_busy(child))
    connection.close()
    assert until(lambda: not is_busy(child)) < LIMIT_SECONDS


def test_the_slot_of_a_client_that_left_is_free_while_others_are_served(start):
    program = start(OLLAMA_NUM_PARALLEL="2")
    other = program.client.generate(MODEL, "Count to 1000", options=LONG, stream=True)
    next(other)
    leaving = post(program, "/api/generate", prompt=slow_prompt(), options=LONG)
    # The other stream becomes slow once the engine processes the second prompt.
    until(lambda: pause_in(other) > 0.2)
    leaving.close()
    started = time.monotonic()
    program.client.generate(MODEL, "Hello", options={"num_predict": 1})
    assert time.monotonic() - started < 2 * LIMIT_SECONDS
    program.end()


def test_a_killed_engine_is_an_error_in_the_stream_and_the_next_request_reloads(loaded, program):
    stream = loaded.generate(MODEL, "Count to 1000", options=LONG, stream=True)
    next(stream)
    (child,) = program.children
    os.kill(child, signal.SIGKILL)
    with pytest.raises(ollama.ResponseError, match="unexpected EOF \\(signal: killed\\)"):
        list(stream)
    assert loaded.generate(MODEL, "Hello", options={"num_predict": 2}).eval_count == 2
    assert program.children != [child]


def test_a_killed_engine_is_a_500_before_the_first_byte_of_the_answer(loaded, program):
    connection = post(program, "/api/generate", prompt="Count", stream=False, options=LONG)
    (child,) = program.children
    until(lambda: is_busy(child))
    os.kill(child, signal.SIGKILL)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 500
    assert b"unexpected EOF" in answer.read()


def test_an_idle_engine_that_died_is_not_listed_as_loaded(loaded, program):
    (child,) = program.children
    os.kill(child, signal.SIGKILL)
    until(lambda: not loaded.ps().models)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_its_engines_without_output(start, number):
    program = start()
    stream = program.client.generate(MODEL, "Count to 1000", options=LONG, stream=True)
    next(stream)
    children = program.children
    assert program.end(number) == 0
    assert children
    assert not any(map(is_alive, children))
    assert program.process.communicate() == ("", "")


def test_a_signal_ends_an_engine_that_still_loads(start):
    program = start()
    post(program, "/api/generate")
    until(lambda: program.children)
    (child,) = program.children
    until(lambda: ".gguf" in Path(f"/proc/{child}/maps").read_text())
    assert not program.loaded()
    assert program.end() == 0
    assert not is_alive(child)


def test_engines_end_with_a_killed_program(start):
    program = start()
    program.client.generate(model=MODEL)
    (child,) = program.children
    program.end(signal.SIGKILL)
    until(lambda: not is_alive(child), 5)


def test_a_program_can_end_with_its_parent(start):
    program = start("--until-stdin-closes")
    program.client.generate(model=MODEL)
    (child,) = program.children
    program.process.stdin.close()
    assert program.process.wait(5) == 0
    assert not is_alive(child)


def test_the_engine_refuses_requests_without_its_key(loaded, program):
    (child,) = program.children
    port = next(iter(listening_ports(child)))
    answer = httpx.post(f"http://127.0.0.1:{port}/completion", json={"prompt": "x"})
    assert answer.status_code == 401


def listening_ports(pid):
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    return {
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in links
    }


def test_the_system_ends_an_engine_before_the_program(loaded, program):
    (child,) = program.children
    assert Path(f"/proc/{child}/oom_score_adj").read_text() == "500\n"
    assert Path(f"/proc/{program.process.pid}/oom_score_adj").read_text() != "500\n"


def test_the_memory_of_requests_is_limited(start):
    program = start(EMBEDDED_REQUEST_MEMORY="100", OLLAMA_NUM_PARALLEL="1")
    program.client.generate(model=MODEL)
    (child,) = program.children
    soft, hard = resource.prlimit(child, resource.RLIMIT_DATA)
    status = Path(f"/proc/{child}/status").read_text()
    assert soft == hard
    assert 0 < soft - int(status.partition("VmData:")[2].split()[0]) * 1024 <= 100 << 20
    program.end()


def test_an_engine_over_its_memory_ends_and_the_next_request_loads_the_model(start):
    program = start(EMBEDDED_REQUEST_MEMORY="64", OLLAMA_NUM_PARALLEL="1")
    arrays = [{"type": "array", "items": {"const": n}, "maxItems": 9_900} for n in range(5)]
    schema = {"prefixItems": arrays, "minItems": 5}
    with pytest.raises(ollama.ResponseError, match="EMBEDDED_REQUEST_MEMORY, 64 MiB") as caught:
        ask(program, format=schema)
    assert caught.value.status_code == 400
    assert ask(program).eval_count == 2
    children = program.children
    with pytest.raises(ollama.ResponseError, match="EMBEDDED_REQUEST_MEMORY, 64 MiB"):
        ask(program, format=schema)
    assert program.children == children
    program.end()


# Products of automata: they take the processor for minutes, and little memory at first.
SLOW = {"allOf": [{"type": "string", "pattern": f"^.{{0,{n}}}a.*$"} for n in range(10, 40)]}


@pytest.fixture(scope="module")
def impatient(start):
    program = start(EMBEDDED_COMPILE_TIMEOUT="1s", OLLAMA_CONTEXT_LENGTH="256")
    yield program
    program.end()


@pytest.fixture
def engine_of(impatient):
    """The process id of the loaded engine."""
    impatient.client.generate(model=MODEL, keep_alive=-1)
    (child,) = impatient.children
    return child


def slow(number):
    """Return a schema that takes long to compile, another one for each number."""
    return {**SLOW, "title": str(number)}


def ask(program, **fields):
    return program.client.generate(MODEL, "Hello", raw=True, options={"num_predict": 2}, **fields)


def test_a_grammar_that_takes_too_long_ends_the_engine_and_is_refused(impatient, engine_of):
    with pytest.raises(ollama.ResponseError, match="takes longer than 1 s to compile") as caught:
        ask(impatient, format=slow(1))
    assert caught.value.status_code == 400
    assert not is_alive(engine_of)
    assert ask(impatient).eval_count == 2
    children = impatient.children
    with pytest.raises(ollama.ResponseError, match="takes longer than 1 s to compile"):
        ask(impatient, format=slow(1))
    assert impatient.children == children


def test_other_requests_are_answered_by_the_next_engine(impatient, engine_of):
    with ThreadPoolExecutor() as threads:
        refused = threads.submit(ask, impatient, format=slow(2))
        until(lambda: is_busy(engine_of))
        others = [threads.submit(ask, impatient) for _ in range(3)]
        assert [other.result().eval_count for other in others] == [2, 2, 2]
        assert "JSON schema conversion failed" in str(refused.exception())


def test_the_engine_is_ended_also_after_the_client_has_left(impatient, engine_of):
    connection = post(impatient, "/api/generate", prompt="Hello", raw=True, format=slow(3))
    until(lambda: is_busy(engine_of))
    connection.close()
    until(lambda: not is_alive(engine_of), 20)
