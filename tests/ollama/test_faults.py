"""The client with a runtime, or another server in its place, that breaks the protocol."""

from __future__ import annotations

import gzip
import json
import socket
import time

import pytest

from mes.errors import (
    GenerationAborted,
    LoadFailed,
    MesError,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
    SchemaRefused,
)

from .conftest import SPEC, generate
from .scripted import (
    END,
    GOOD,
    NDJSON,
    STREAM,
    answers,
    chunk,
    head,
    last,
    line,
    once,
    streamed,
    token,
    whole,
)

ABORTED = {
    "no done": streamed(token("Hel")),
    "an empty stream": streamed(),
    "an empty body": whole(b""),
    "an error line": streamed(token("Hel"), line(error="unexpected EOF")),
    "an error line first": streamed(line(error="unexpected EOF")),
    "closed between chunks": STREAM + chunk(token("Hel")),
    "closed inside a chunk": STREAM + chunk(token("Hel")) + b"400\r\n{",
    "half of a stated length": head(content_length="900") + token("Hel"),
    "half a line inside a chunk": STREAM + b"40\r\n" + token("Hello")[:20],
    "closed without an answer": b"",
    "closed in the middle of the head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "unloaded": streamed(last(done_reason="unload")),
    "only loaded": streamed(last(done_reason="load")),
    "no reason for being done": streamed(last(done_reason=None)),
    "done without being so": streamed(token("Hel"), line(response="", done=False)),
}
INVALID = {
    "a page": whole(b"<html>hello</html>", content_type="text/html"),
    "half a line": streamed(token("Hel"), b'{"response": "l\n'),
    "a list": streamed(b"[1]\n"),
    "invalid UTF-8": streamed(b'{"response": "\xff", "done": false}\n'),
    "a lone surrogate": streamed(b'{"response": "\\ud800", "done": false}\n'),
    "not a number": streamed(last().replace(b'"eval_count": 2', b'"eval_count": NaN')),
    "a negative count": streamed(last(eval_count=-1)),
    "a count of text": streamed(last(prompt_eval_count="3")),
    "a fractional count": streamed(last(eval_count=2.5)),
    "a true count": streamed(last(eval_count=True)),
    "an enormous count": streamed(
        last().replace(b'"eval_count": 2', b'"eval_count": ' + b"9" * 99)
    ),
    "a negative count of cached tokens": streamed(last(prompt_cached_count=-1)),
    "a negative duration": streamed(last(eval_duration=-1)),
    "a response that is not text": streamed(line(response=1, done=False)),
    "a response too deep": streamed(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}\n"),
    "a bad status line": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "a status of 999": whole(b"{}", status=999),
    "no content": head(204),
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "a bad chunk size": STREAM + b"zz\r\nhello\r\n",
    "two lengths": head(content_length="3, 4") + b"{}",
    "switched protocols": head(101),
}
# Error responses that are not in Ollama's form: their text is not passed on.
FOREIGN = {
    "a 502 page": (502, b"<html>Bad Gateway</html>"),
    "a 500 page": (500, b"<html>oops</html>"),
    "a 404 page": (404, b"404 page not found"),
    "a 403 without a body": (403, b""),
    "an error of pages": (500, json.dumps({"error": "<html>oops</html>"}).encode()),
    "an error that is not text": (500, b'{"error": 7}'),
    "a teapot": (418, b'{"error": "short and stout"}'),
}


@pytest.mark.parametrize("answer", ABORTED.values(), ids=ABORTED)
def test_a_generation_that_does_not_end_properly_is_aborted(serve, runtime_client, answer):
    with pytest.raises(GenerationAborted):
        generate(runtime_client(serve(once(answer))))


@pytest.mark.parametrize("answer", INVALID.values(), ids=INVALID)
def test_invalid_bytes_are_an_invalid_reply(serve, runtime_client, answer):
    with pytest.raises(RuntimeReplyInvalid):
        generate(runtime_client(serve(once(answer))))


def test_a_head_that_cannot_be_parsed_is_not_logged(serve, runtime_client, caplog):
    garbled = b"HTTP/1.1 200 OK\r\nX: y\r\nan internal secret\r\n\r\n"

    with pytest.raises(MesError):
        generate(runtime_client(serve(once(garbled))))

    assert "secret" not in caplog.text


@pytest.mark.parametrize(("status", "body"), FOREIGN.values(), ids=FOREIGN)
def test_the_text_of_another_server_is_never_passed_on(serve, runtime_client, status, body):
    with pytest.raises(RuntimeReplyInvalid) as caught:
        generate(runtime_client(serve(once(whole(body, status, content_type="text/html")))))

    assert str(status) in caught.value.detail
    assert "html" not in caught.value.detail
    assert "page" not in caught.value.detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_its_target_never_contacted(serve, runtime_client, status):
    target = serve(answers(GOOD))
    location = head(status, location=f"{target.url}/api/generate", content_length="0")

    with pytest.raises(RuntimeReplyInvalid):
        generate(runtime_client(serve(once(location))))

    assert target.connections == 0


def test_a_compressed_response_is_refused_and_never_decompressed(serve, runtime_client):
    bomb = gzip.compress(b"0" * 10_000_000)
    server = serve(once(whole(bomb, content_encoding="gzip")))

    with pytest.raises(RuntimeReplyInvalid, match="encoding"):
        generate(runtime_client(server))

    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "start", [STREAM, head(content_length=str(20_000_000)), head(connection="close")]
)
def test_a_response_is_read_no_further_than_the_limit(serve, runtime_client, start):
    sent = []

    def flood(peer):
        peer.read_request()
        peer.send(start)
        piece = chunk(b"x" * 65536) if start is STREAM else b"x" * 65536
        for _ in range(20_000_000 // 65536):
            peer.send(piece)
            sent.append(65536)

    with pytest.raises(RuntimeReplyInvalid, match="more than"):
        generate(runtime_client(serve(flood), max_reply_bytes=1_000_000))

    # The buffers of the kernel on both ends are added to the limit.
    assert sum(sent) < 12_000_000


@pytest.mark.parametrize("when", ["before a byte", "after some text"])
def test_a_reset_connection_aborts_the_generation(serve, runtime_client, when):
    def reset(peer):
        peer.read_request()
        if when == "after some text":
            peer.send(STREAM + chunk(token("Hel")))
        peer.reset()

    with pytest.raises(GenerationAborted):
        generate(runtime_client(serve(reset)))


def test_a_runtime_that_does_not_run_is_unavailable_and_named(runtime_client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()

    with pytest.raises(RuntimeUnavailable, match=rf"127\.0\.0\.1:{port} cannot be reached") as hit:
        generate(runtime_client(f"http://secret:word@127.0.0.1:{port}"))

    assert "word" not in hit.value.detail
    assert hit.value.retry_after
    assert time.monotonic() - started < 4  # the deadline of the generation is at 5 s


def test_an_invalid_host_name_is_unavailable(runtime_client):
    with pytest.raises(RuntimeUnavailable, match=r"no\.\.name:11434 cannot be reached"):
        runtime_client("http://no..name:11434").version()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("999999", 60.0), ("soon", 2.0)])
def test_a_busy_runtime_names_the_time_to_wait(serve, runtime_client, status, header, seconds):
    body = line(error="server busy, please try again.  maximum pending requests exceeded")
    server = serve(once(whole(body, status, retry_after=header)))

    with pytest.raises(RuntimeUnavailable, match="server busy") as caught:
        generate(runtime_client(server))

    assert caught.value.retry_after == seconds


def test_the_error_of_a_runner_that_died_is_the_detail(serve, runtime_client):
    body = line(error="model runner has unexpectedly stopped\n\x1b[31mcudaMalloc failed")

    with pytest.raises(GenerationAborted, match=r"stopped \[31mcudaMalloc failed"):
        generate(runtime_client(serve(once(whole(body, 500)))))


def test_the_text_of_an_error_is_shortened(serve, runtime_client):
    with pytest.raises(GenerationAborted) as caught:
        generate(runtime_client(serve(once(whole(line(error="long " * 1000), 500)))))

    assert len(caught.value.detail) <= 300


def test_a_prompt_longer_than_the_context_is_an_error_of_the_client(serve, runtime_client):
    body = line(error="the prompt is longer than the context length currently available")

    with pytest.raises(PromptTooLong, match="model's maximum context length is 512 tokens"):
        generate(runtime_client(serve(once(whole(body, 400)))))


def test_an_invalid_grammar_is_a_refused_schema_only_if_there_is_a_schema(serve, runtime_client):
    body = line(error="Failed to initialize samplers: failed to parse grammar")
    runtime = runtime_client(serve(answers(whole(body, 400))))

    with pytest.raises(SchemaRefused):
        generate(runtime, format={"type": "object"})
    with pytest.raises(RequestInvalid, match="failed to parse grammar"):
        generate(runtime)


@pytest.mark.parametrize("status", [400, 500])
def test_an_image_that_cannot_be_read_is_a_mistake_of_the_client(serve, runtime_client, status):
    body = line(error="Failed to load image or audio file")

    with pytest.raises(RequestInvalid, match="Failed to load image"):
        generate(runtime_client(serve(once(whole(body, status)))))


def test_a_load_that_fails_names_the_reason(serve, runtime_client):
    body = line(error="llama-server process has terminated: signal: killed")

    with pytest.raises(LoadFailed, match="signal: killed"):
        runtime_client(serve(once(whole(body, 500)))).load(SPEC, deadline=time.monotonic() + 5)


@pytest.mark.parametrize(
    "answer",
    [b"", whole(line(error="out of memory")), whole(b"")],
    ids=["closed", "an error line", "an empty body"],
)
def test_an_interrupted_load_has_failed(serve, runtime_client, answer):
    with pytest.raises(LoadFailed):
        runtime_client(serve(once(answer))).load(SPEC, deadline=time.monotonic() + 5)


def test_an_interrupted_short_request_finds_the_runtime_unavailable(serve, runtime_client):
    with pytest.raises(RuntimeUnavailable):
        runtime_client(serve(once(b""))).loaded()


def test_the_first_done_counts(serve, runtime_client):
    answer = streamed(token("Hello"), last(), token("again"), last(eval_count=9))

    reply = generate(runtime_client(serve(once(answer))))

    assert reply.text == "Hello"
    assert reply.usage.completion_tokens == 2


def test_absent_counts_are_zero(serve, runtime_client):
    answer = streamed(line(response="Hello", done=True, done_reason="length"))

    reply = generate(runtime_client(serve(once(answer))))

    assert reply.usage.total_tokens == 0
    assert (reply.prompt_ms, reply.generation_ms) == (0, 0)
    assert (reply.text, reply.finish_reason) == ("Hello", "length")


def test_lines_are_joined_however_the_chunks_divide_them(serve, runtime_client):
    text = token("Hel") + token("lö\u0000") + last()
    bytewise = STREAM + b"".join(chunk(bytes([byte])) for byte in text) + END
    at_once = STREAM + chunk(text) + END
    unframed = head(content_type=NDJSON, connection="close") + text
    for answer in (bytewise, at_once, unframed, whole(text.rstrip())):
        assert generate(runtime_client(serve(once(answer)))).text == "Hello\0".replace("o", "ö")


def test_interim_responses_are_skipped(serve, runtime_client):
    early = head(103, link="</style.css>") + head(100) + head(102)

    assert generate(runtime_client(serve(once(early + GOOD)))).text == "Hello"


def test_thinking_is_never_part_of_the_text(serve, runtime_client):
    answer = streamed(line(response="", thinking="Hmm", done=False), token("Hello"), last())

    assert generate(runtime_client(serve(once(answer)))).text == "Hello"
