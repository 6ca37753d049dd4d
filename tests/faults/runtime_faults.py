"""Faults of the runtime during a generation, each for a blocking and for a streaming client."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tests.faults.client import Client, Response
from tests.faults.fault import Expected, Fault
from tests.faults.scripts import (
    by_attempt,
    drip,
    echo,
    flood,
    generate,
    respond,
    respond_then_close,
    respond_then_hang,
    respond_then_reset,
    without_grammar,
)
from tests.ollama.scripted import (
    GOOD,
    NDJSON,
    STREAM,
    chunk,
    head,
    last,
    line,
    streamed,
    token,
    whole,
)
from tests.support.fake_ollama.faults import Script

HELLO = streamed(token("Hello"), last())
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LATE = Expected(504, "generation_timeout", within_seconds=10)
# So long that the first token is relayed before it, also when the machine is busy.
TIMEOUT_SECONDS = 1.5
BROKEN = Expected(502, "generation_aborted")
NONSENSE = Expected(502, "runtime_reply_invalid")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(frozen=True)
class RuntimeFault:
    """A script of the runtime, and the fields of the request that it is played for."""

    case: str
    name: str
    script: Script
    expected: Expected
    fields: Mapping[str, Any] = field(default_factory=dict)

    def provoke(self, client: Client, **more: Any) -> Response:
        return client.provoke(self.name, **self.fields, **more)


def text_is(output: str) -> Expected:
    """Expect a success with this text."""
    return Expected(200, also=lambda response: response.json["output"] == output)


def verdict_is(verdict: str, *, attempts: int = 1) -> Expected:
    """Expect a success with this verdict on the schema."""

    def also(response: Response) -> bool:
        structured = response.json["structured"]
        return (structured["verdict"], structured["attempts"]) == (verdict, attempts)

    return Expected(200, None if verdict == "valid" else verdict, also=also)


def counts_both_attempts(response: Response) -> bool:
    """Return whether the usage is the sum of two attempts with two tokens each."""
    return bool(response.json["usage"]["completion_tokens"] == 2 * 2)


def slow(case: str, name: str, script: Script) -> RuntimeFault:
    return RuntimeFault(case, name, script, LATE, {"timeout": TIMEOUT_SECONDS})


def with_schema(
    case: str, name: str, script: Script, expected: Expected, **more: Any
) -> RuntimeFault:
    return RuntimeFault(
        case, name, script, expected, {"json_schema": SCHEMA, "max_attempts": 1, **more}
    )


SLOW = [
    slow("U2", "never answers", respond_then_hang()),
    slow("U3", "headers, then silence", respond_then_hang(STREAM)),
    slow("U3", "some text, then silence", respond_then_hang(STREAM + chunk(token("Hel")))),
    slow("U4", "a byte of a header at a time", drip(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n")),
    slow("U5", "a byte of the body at a time", drip(STREAM, chunk(token("a")))),
    slow(
        "U21",
        "a length that is too long",
        respond_then_hang(head(content_length="9000") + token("a")),
    ),
]
BROKEN_OFF = [
    (
        "U6",
        "half of a stated length",
        respond_then_close(head(content_length="900") + token("Hel")),
    ),
    ("U7", "closed between chunks", respond_then_close(STREAM + chunk(token("Hel")))),
    ("U7", "closed inside a chunk", respond_then_close(STREAM + chunk(token("Hel")) + b"400\r\n{")),
    ("U8", "reset before a byte", respond_then_reset()),
    ("U8", "reset after some text", respond_then_reset(STREAM + chunk(token("Hel")))),
    ("U9", "nothing", respond_then_close(b"")),
    ("U10", "never done", respond(streamed(token("Hel")))),
    ("U11", "an error in the stream", respond(streamed(token("Hel"), line(error="out of luck")))),
    ("U15", "the runner stopped", respond(whole(line(error="runner has stopped"), 500))),
    ("U28", "unloaded meanwhile", respond(streamed(last(done_reason="unload")))),
]
INVALID = [
    ("U9", "half a line of JSON", respond(streamed(token("Hel"), b'{"response": "l\n'))),
    ("U9", "a page", respond(whole(b"<html>hello</html>", content_type="text/html"))),
    ("U10", "two objects in a line", respond(streamed(token("Hel").strip() + token("lo")))),
    ("U16", "a page with 502", respond(whole(b"<html>Bad Gateway</html>", 502))),
    ("U16", "a page with 500", respond(whole(b"<html>oops</html>", 500))),
    ("U17", "a redirect", respond(head(307, location="http://127.0.0.1:9/", content_length="0"))),
    ("U18", "64 MB in chunks", flood(STREAM)),
    ("U18", "64 MB at a length", flood(head(content_length="67108864"))),
    (
        "U19",
        "a packed answer",
        respond(whole(gzip.compress(b"0" * 10_000_000), content_encoding="gzip")),
    ),
    ("U20", "a header of 1 MB", respond_then_close(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)),
    ("U20", "a chunk of no size", respond_then_close(STREAM + b"zz\r\nhello\r\n")),
    ("U20", "a status line that is none", respond_then_close(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")),
    ("U20", "a status of 999", respond(whole(b"{}", 999))),
    ("U24", "invalid UTF-8", respond(streamed(b'{"response": "\xff", "done": false}\n'))),
    ("U24", "half a surrogate pair", respond(streamed(b'{"response": "\\ud800"}\n'))),
    ("U29", "a negative count", respond(streamed(last(eval_count=-1)))),
    ("U29", "a count that is text", respond(streamed(last(eval_count="2")))),
]
REFUSED = [
    RuntimeFault(
        "U14",
        "busy",
        respond(whole(line(error=BUSY), 503, retry_after="7")),
        Expected(503, "runtime_unavailable", {"retry-after": "7"}),
    ),
    RuntimeFault(
        "U14",
        "too many, for a year",
        respond(whole(line(error=BUSY), 429, retry_after="31536000")),
        Expected(503, "runtime_unavailable", {"retry-after": "60"}),
    ),
    RuntimeFault(
        "U13",
        "the model is missing",
        respond(whole(line(error="model not found"), 404)),
        Expected(404, "model_not_pulled"),
    ),
]
SUCCESSFUL = [
    (
        "U10",
        "done twice",
        respond(streamed(token("Hello"), last(), last(eval_count=9))),
        text_is("Hello"),
    ),
    (
        "U21",
        "a length that is too short",
        respond(whole(token("Hello") + last()), GOOD),
        text_is("Hello"),
    ),
    ("U22", "closed after the answer", respond_then_close(HELLO), text_is("Hello")),
    ("U23", "early hints", respond(head(103, link="</x>") + HELLO), text_is("Hello")),
    (
        "U23",
        "another content type",
        respond(HELLO.replace(NDJSON.encode(), b"text/plain")),
        text_is("Hello"),
    ),
    ("U24", "NUL in the text", generate("a\0b"), text_is("a\0b")),
    (
        "U28",
        "no more tokens",
        generate("Hel", done_reason="length"),
        Expected(200, also=lambda response: response.json["finish_reason"] == "length"),
    ),
    (
        "U29",
        "no counts",
        respond(streamed(line(response="Hello", done=True, done_reason="stop"))),
        Expected(200, also=lambda response: response.json["usage"]["total_tokens"] == 0),
    ),
    (
        "U30",
        "headers of its own",
        respond(
            HELLO.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\nServer: go\r\nX-Internal: x\r\n", 1)
        ),
        Expected(
            200,
            also=lambda response: (
                not {"set-cookie", "x-internal"} & response.headers.keys()
                and response.headers["server"] != "go"
            ),
        ),
    ),
    (
        "U32",
        "sends its reasoning",
        respond(streamed(line(response="", thinking="Hm", done=False), token("Hello"), last())),
        text_is("Hello"),
    ),
]
WITH_SCHEMA = [
    with_schema(
        "U12",
        "no grammar can be made",
        without_grammar(
            respond(whole(line(error="failed to parse grammar"), 400)),
            generate(json.dumps({"n": 1})),
        ),
        verdict_is("valid"),
        # A schema of its own, because the service remembers schemas without a grammar.
        json_schema={**SCHEMA, "title": "no grammar"},
    ),
    with_schema("U25", "NaN", generate('{"n": NaN}'), verdict_is("not_json")),
    with_schema("U25", "a key twice", generate('{"n": 1, "n": 2}'), verdict_is("not_json")),
    with_schema(
        "U25", "5,000 digits", generate('{"n": %s}' % ("9" * 5000)), verdict_is("not_json")
    ),
    with_schema("U25", "5,000 levels", generate("[" * 5000 + "]" * 5000), verdict_is("not_json")),
    with_schema("U26", "in a fence", generate('```json\n{"n": 1}\n```'), verdict_is("valid")),
    with_schema(
        "U26", "and prose after it", generate('{"n": 1} as you wished'), verdict_is("valid")
    ),
    with_schema("U26", "not JSON", generate("one"), verdict_is("not_json")),
    with_schema("U26", "blank", generate("  "), verdict_is("empty")),
    with_schema(
        "U27",
        "wrong, then right",
        by_attempt(generate('{"n": "1"}'), generate('{"n": 1}')),
        Expected(
            200,
            also=lambda response: (
                counts_both_attempts(response) and response.json["structured"]["attempts"] == 2
            ),
        ),
        max_attempts=2,
    ),
    with_schema(
        "U27",
        "wrong each time",
        generate('{"n": "1"}'),
        verdict_is("schema_violation", attempts=2),
        max_attempts=2,
    ),
    with_schema(
        "U28", "cut off", generate('{"n": 1', done_reason="length"), verdict_is("truncated")
    ),
]

RUNTIME_FAULTS = [
    *SLOW,
    *(RuntimeFault(*each, BROKEN) for each in BROKEN_OFF),
    *(RuntimeFault(*each, NONSENSE) for each in INVALID),
    *REFUSED,
    *(RuntimeFault(*each) for each in SUCCESSFUL),
    *WITH_SCHEMA,
]

SILENCE, ECHO, LONG, WORD = "silence", "echo", "a long answer", "a word, and silence"
SCRIPTS = {
    **{each.name: each.script for each in RUNTIME_FAULTS},
    SILENCE: respond_then_hang(),
    ECHO: echo,
    LONG: generate("x" * 4_000_000),
    WORD: respond_then_hang(STREAM + chunk(token("Hel"))),
}
"""The scripts that a prompt can name."""

# A streaming client gets some text before these faults; the others show in the status.
AFTER_SOME_TEXT = {
    "some text, then silence",
    "a length that is too long",
    "half of a stated length",
    "closed between chunks",
    "closed inside a chunk",
    "reset after some text",
    "never done",
    "an error in the stream",
    "half a line of JSON",
}


def streaming(fault: RuntimeFault) -> Fault:
    late = fault.name in AFTER_SOME_TEXT
    expected = replace(fault.expected, also=_fails_after_some_text) if late else fault.expected
    provoke = partial(fault.provoke, stream=True)
    return Fault(fault.case, f"{fault.name}, streamed", provoke, expected)


def _fails_after_some_text(response: Response) -> bool:
    kinds = [each["type"] for each in response.lines if each["type"] != "loading"]
    return kinds == ["token", "error"]


FAULTS = [
    *(Fault(each.case, each.name, each.provoke, each.expected) for each in RUNTIME_FAULTS),
    *map(streaming, RUNTIME_FAULTS),
]
