"""How the client uses its connections, and the requests that it sends."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType

import pytest

from mes.domain import Event, Reply
from mes.errors import GenerationAborted, ModelNotPulled, RuntimeReplyInvalid, RuntimeUnavailable

from .conftest import generate
from .scripted import (
    END,
    GOOD,
    STREAM,
    Peer,
    answers,
    chunk,
    last,
    line,
    once,
    streamed,
    token,
    whole,
)


def echo(peer: Peer) -> None:
    """Answer every prompt with itself."""
    while (asked := peer.read_request()) is not None:
        peer.send(streamed(*map(token, asked.json["prompt"]), last()))


def stale(peer: Peer) -> None:
    """Answer once, read the next request and close the connection, like an idle timeout."""
    peer.read_request()
    peer.send(GOOD)
    peer.read_request()


def stale_by_reset(peer: Peer) -> None:
    stale(peer)
    peer.reset()


def test_one_connection_serves_request_after_request(serve, runtime_client):
    server = serve(answers(GOOD))
    runtime = runtime_client(server)

    for _ in range(5):
        generate(runtime)

    assert server.connections == 1
    assert len(server.asked) == 5


@pytest.mark.parametrize("closing", [stale, stale_by_reset])
def test_a_stale_connection_is_replaced(serve, runtime_client, closing):
    server = serve(closing, answers(GOOD))
    runtime = runtime_client(server)
    generate(runtime)

    assert generate(runtime).text == "Hello"
    assert server.connections == 2


def test_a_stale_connection_is_replaced_by_a_fresh_one_not_by_another_stale_one(
    serve, runtime_client
):
    both = threading.Barrier(2)

    def closing(peer: Peer) -> None:
        peer.read_request()
        both.wait(5)  # so that two connections are open at once
        peer.send(GOOD)
        peer.read_request()

    server = serve(closing, closing, answers(GOOD))
    runtime = runtime_client(server)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: generate(runtime), range(2)))

    assert generate(runtime).text == "Hello"
    assert server.connections == 3


def test_a_fresh_connection_that_fails_is_not_tried_again(serve, runtime_client):
    server = serve(once(b""))

    with pytest.raises(GenerationAborted):
        generate(runtime_client(server))

    assert server.connections == 1


def test_a_response_that_has_begun_is_not_requested_again(serve, runtime_client):
    def half(peer: Peer) -> None:
        peer.read_request()
        peer.send(GOOD)
        peer.read_request()
        peer.send(b"HTTP/1.1 20")

    server = serve(half, answers(GOOD))
    runtime = runtime_client(server)
    generate(runtime)

    with pytest.raises((GenerationAborted, RuntimeReplyInvalid)):
        generate(runtime)
    assert server.connections == 1


def test_a_runtime_that_stopped_between_requests_is_unavailable(serve, runtime_client):
    server = serve(stale)
    runtime = runtime_client(server)
    generate(runtime)
    server.close()

    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        generate(runtime)


def test_an_invalid_reply_ends_a_connection(serve, runtime_client):
    server = serve(answers(whole(b"nonsense")), answers(GOOD))
    runtime = runtime_client(server)
    with pytest.raises(RuntimeReplyInvalid):
        generate(runtime)

    assert generate(runtime).text == "Hello"
    assert server.connections == 2


def test_bytes_after_a_response_are_not_taken_for_the_next_one(serve, runtime_client):
    other = streamed(token("Not yours"), last())
    server = serve(answers(whole(line(error="no"), 404) + other), answers(GOOD))
    runtime = runtime_client(server)
    with pytest.raises(ModelNotPulled):
        generate(runtime)

    assert generate(runtime).text == "Hello"


def test_many_threads_each_get_their_own_answer(serve, runtime_client):
    server = serve(echo)
    runtime = runtime_client(server)
    prompts = [f"prompt {number}" for number in range(200)]

    with ThreadPoolExecutor(8) as threads:
        replies = threads.map(lambda text: generate(runtime, text=text).text, prompts)

        assert list(replies) == prompts
    assert server.connections <= 8


def test_an_answer_of_a_stated_length_leaves_its_connection_to_others(serve, runtime_client):
    """The connection is free as soon as the response is read, before it is parsed."""
    first_done = threading.Event()

    def sized_then_slow(peer: Peer) -> None:
        peer.read_request()
        peer.send(whole(token("first") + last()))
        peer.read_request()
        peer.send(STREAM + chunk(token("sec")))
        first_done.wait(10)
        peer.send(chunk(token("ond")))
        time.sleep(0.5)  # longer than the client waits for the end of a finished response
        peer.send(chunk(last()) + END)

    server = serve(sized_then_slow)
    runtime = runtime_client(server)
    second_started = threading.Event()
    with ThreadPoolExecutor(1) as thread:

        def start_second(_: Event) -> None:
            futures.append(thread.submit(generate, runtime, emit=lambda _: second_started.set()))
            assert second_started.wait(10)

        futures: list[Future[Reply]] = []
        assert generate(runtime, emit=start_second).text == "first"
        first_done.set()

        assert futures[0].result().text == "second"
    assert server.connections == 1


def test_proxies_and_netrc_of_the_environment_are_ignored(
    serve, runtime_client, monkeypatch, tmp_path
):
    proxy, server = serve(answers(GOOD)), serve(answers(GOOD))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)

    generate(runtime_client(server))

    assert proxy.connections == 0
    assert "authorization" not in server.asked[0].headers


def test_cookies_are_not_kept(serve, runtime_client):
    server = serve(answers(GOOD.replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)))
    runtime = runtime_client(server)

    generate(runtime)
    generate(runtime)

    assert "cookie" not in server.asked[1].headers


def test_only_the_headers_that_are_needed_are_sent(serve, runtime_client):
    server = serve(answers(GOOD))

    generate(runtime_client(server))

    assert server.asked[0].headers.keys() == {
        "host",
        "user-agent",
        "accept-encoding",
        "content-type",
        "content-length",
    }


def test_every_generation_sets_all_fields_that_ollama_would_otherwise_decide(serve, runtime_client):
    server = serve(answers(GOOD))

    generate(runtime_client(server), system="Be brief.", format={"type": "object"})

    sent = server.asked[0].json
    assert sent["stream"] is True
    assert sent["truncate"] is False
    assert sent["shift"] is False
    assert sent["think"] is False
    assert "keep_alive" not in sent
    assert sent["options"]["num_predict"] == 24
    assert sent["system"] == "Be brief."
    assert sent["format"] == {"type": "object"}


def test_the_properties_of_a_schema_keep_their_order(serve, runtime_client):
    server = serve(answers(GOOD))
    schema = {"type": "object", "properties": {"zebra": {}, "ant": {}, "mole": {}}}

    generate(runtime_client(server), format=schema)

    assert list(server.asked[0].json["format"]["properties"]) == ["zebra", "ant", "mole"]


def test_a_schema_may_be_any_mapping_and_contain_any_number(serve, runtime_client):
    server = serve(answers(GOOD))
    schema = {"properties": MappingProxyType({"size": {"maximum": 10**30}})}

    generate(runtime_client(server), format=MappingProxyType(schema))

    assert server.asked[0].json["format"]["properties"]["size"]["maximum"] == 10**30


@pytest.mark.parametrize("host", ["{0}", "http://{0}", "http://{0}/", "http://{0}/ollama/"])
def test_a_host_may_be_written_in_several_ways(serve, runtime_client, host):
    server = serve(answers(whole(b'{"version": "1"}')))

    runtime_client(host.format(server.url.removeprefix("http://"))).version()

    prefix = "/ollama" if "ollama" in host else ""
    assert server.asked[0].line == f"GET {prefix}/api/version HTTP/1.1"


def test_a_generation_that_emits_nothing_needs_no_stream_pump(serve, runtime_client):
    runtime = runtime_client(serve(answers(GOOD)), stream_pump=None)
    assert generate(runtime).text == "Hello"
