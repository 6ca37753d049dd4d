"""What the runtime does wrong in the middle of a generation."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.client import Client, Heard
from tests.faults.fault import Expected
from tests.faults.scripts import (
    drips,
    ends,
    floods,
    in_turn,
    no_op,
    resets,
    says,
    tells,
    under_grammar,
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
BROKEN = Expected(502, "generation_aborted")
NONSENSE = Expected(502, "runtime_reply_invalid")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(frozen=True)
class Misbehaviour:
    """What the runtime does at the wire, and the fields of the request that it spoils."""

    case: str
    name: str
    script: Script
    expected: Expected
    fields: Mapping[str, Any] = field(default_factory=dict)

    def provoke(self, client: Client, **more: Any) -> Heard:
        return client.provoke(self.name, **self.fields, **more)


def said(output: str) -> Expected:
    """A success with this text."""
    return Expected(200, also=lambda heard: heard.json["output"] == output)


def judged(verdict: str, *, attempts: int = 1) -> Expected:
    """An answer that the service has judged by a schema."""

    def also(heard: Heard) -> bool:
        told = heard.json["structured"]
        return (told["verdict"], told["attempts"]) == (verdict, attempts)

    return Expected(200, None if verdict == "valid" else verdict, also=also)


def counted(heard: Heard) -> bool:
    """Both attempts' tokens are in the sum."""
    return bool(heard.json["usage"]["completion_tokens"] == 2 * 2)


def slow(case: str, name: str, script: Script) -> Misbehaviour:
    return Misbehaviour(case, name, script, LATE, {"timeout": 0.4})


def judging(case: str, name: str, script: Script, expected: Expected, **more: Any) -> Misbehaviour:
    return Misbehaviour(
        case, name, script, expected, {"json_schema": SCHEMA, "max_attempts": 1, **more}
    )


SLOW = [
    slow("U2", "never answers", no_op()),
    slow("U3", "headers, then silence", no_op(STREAM)),
    slow("U3", "some text, then silence", no_op(STREAM + chunk(token("Hel")))),
    slow("U4", "a byte of a header at a time", drips(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n")),
    slow("U5", "a byte of the body at a time", drips(STREAM, chunk(token("a")))),
    slow("U21", "a length that is too long", no_op(head(content_length="9000") + token("a"))),
]
BROKEN_OFF = [
    ("U6", "half of a stated length", ends(head(content_length="900") + token("Hel"))),
    ("U7", "closed between chunks", ends(STREAM + chunk(token("Hel")))),
    ("U7", "closed inside a chunk", ends(STREAM + chunk(token("Hel")) + b"400\r\n{")),
    ("U8", "reset before a byte", resets()),
    ("U8", "reset after some text", resets(STREAM + chunk(token("Hel")))),
    ("U9", "nothing", ends(b"")),
    ("U10", "never done", says(streamed(token("Hel")))),
    ("U11", "an error in the stream", says(streamed(token("Hel"), line(error="out of luck")))),
    ("U15", "the runner stopped", says(whole(line(error="runner has stopped"), 500))),
    ("U28", "unloaded meanwhile", says(streamed(last(done_reason="unload")))),
]
NO_SENSE = [
    ("U9", "half a line of JSON", says(streamed(token("Hel"), b'{"response": "l\n'))),
    ("U9", "a page", says(whole(b"<html>hello</html>", content_type="text/html"))),
    ("U10", "two objects in a line", says(streamed(token("Hel").strip() + token("lo")))),
    ("U16", "a page with 502", says(whole(b"<html>Bad Gateway</html>", 502))),
    ("U16", "a page with 500", says(whole(b"<html>oops</html>", 500))),
    ("U17", "a redirect", says(head(307, location="http://127.0.0.1:9/", content_length="0"))),
    ("U18", "64 MB in chunks", floods(STREAM)),
    ("U18", "64 MB at a length", floods(head(content_length="67108864"))),
    (
        "U19",
        "a packed answer",
        says(whole(gzip.compress(b"0" * 10_000_000), content_encoding="gzip")),
    ),
    ("U20", "a header of 1 MB", ends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)),
    ("U20", "a chunk of no size", ends(STREAM + b"zz\r\nhello\r\n")),
    ("U20", "a status line that is none", ends(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")),
    ("U20", "a status of 999", says(whole(b"{}", 999))),
    ("U24", "invalid UTF-8", says(streamed(b'{"response": "\xff", "done": false}\n'))),
    ("U24", "half a surrogate pair", says(streamed(b'{"response": "\\ud800"}\n'))),
    ("U29", "a negative count", says(streamed(last(eval_count=-1)))),
    ("U29", "a count that is text", says(streamed(last(eval_count="2")))),
]
REFUSED = [
    Misbehaviour(
        "U14",
        "busy",
        says(whole(line(error=BUSY), 503, retry_after="7")),
        Expected(503, "runtime_unavailable", {"retry-after": "7"}),
    ),
    Misbehaviour(
        "U14",
        "too many, for a year",
        says(whole(line(error=BUSY), 429, retry_after="31536000")),
        Expected(503, "runtime_unavailable", {"retry-after": "60"}),
    ),
    Misbehaviour(
        "U13",
        "the model is gone",
        says(whole(line(error="model not found"), 404)),
        Expected(404, "model_not_pulled"),
    ),
]
SERVED = [
    (
        "U10",
        "done twice",
        says(streamed(token("Hello"), last(), last(eval_count=9))),
        said("Hello"),
    ),
    (
        "U21",
        "a length that is too short",
        says(whole(token("Hello") + last()), GOOD),
        said("Hello"),
    ),
    ("U22", "closed after the answer", ends(HELLO), said("Hello")),
    ("U23", "early hints", says(head(103, link="</x>") + HELLO), said("Hello")),
    (
        "U23",
        "another content type",
        says(HELLO.replace(NDJSON.encode(), b"text/plain")),
        said("Hello"),
    ),
    ("U24", "NUL in the text", tells("a\0b"), said("a\0b")),
    (
        "U28",
        "no more tokens",
        tells("Hel", done_reason="length"),
        Expected(200, also=lambda heard: heard.json["finish_reason"] == "length"),
    ),
    (
        "U29",
        "no counts",
        says(streamed(line(response="Hello", done=True, done_reason="stop"))),
        Expected(200, also=lambda heard: heard.json["usage"]["total_tokens"] == 0),
    ),
    (
        "U30",
        "headers of its own",
        says(HELLO.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\nServer: go\r\nX-Internal: x\r\n", 1)),
        Expected(
            200,
            also=lambda heard: (
                not {"set-cookie", "x-internal"} & heard.headers.keys()
                and heard.headers["server"] != "go"
            ),
        ),
    ),
    (
        "U32",
        "thinks aloud",
        says(streamed(line(response="", thinking="Hm", done=False), token("Hello"), last())),
        said("Hello"),
    ),
]
JUDGED = [
    judging(
        "U12",
        "no grammar can be made",
        under_grammar(
            says(whole(line(error="failed to parse grammar"), 400)), tells(json.dumps({"n": 1}))
        ),
        judged("valid"),
        # Its own, for the service remembers what cannot be made a grammar of.
        json_schema={**SCHEMA, "title": "no grammar"},
    ),
    judging("U25", "NaN", tells('{"n": NaN}'), judged("not_json")),
    judging("U25", "a key twice", tells('{"n": 1, "n": 2}'), judged("not_json")),
    judging("U25", "5,000 digits", tells('{"n": %s}' % ("9" * 5000)), judged("not_json")),
    judging("U25", "5,000 levels", tells("[" * 5000 + "]" * 5000), judged("not_json")),
    judging("U26", "in a fence", tells('```json\n{"n": 1}\n```'), judged("valid")),
    judging("U26", "and prose after it", tells('{"n": 1} as you wished'), judged("valid")),
    judging("U26", "not JSON", tells("one"), judged("not_json")),
    judging("U26", "blank", tells("  "), judged("empty")),
    judging(
        "U27",
        "wrong, then right",
        in_turn(tells('{"n": "1"}'), tells('{"n": 1}')),
        Expected(
            200, also=lambda heard: counted(heard) and heard.json["structured"]["attempts"] == 2
        ),
        max_attempts=2,
    ),
    judging(
        "U27",
        "wrong each time",
        tells('{"n": "1"}'),
        judged("schema_violation", attempts=2),
        max_attempts=2,
    ),
    judging("U28", "cut off", tells('{"n": 1', done_reason="length"), judged("truncated")),
]

MISBEHAVIOURS = [
    *SLOW,
    *(Misbehaviour(*each, BROKEN) for each in BROKEN_OFF),
    *(Misbehaviour(*each, NONSENSE) for each in NO_SENSE),
    *REFUSED,
    *(Misbehaviour(*each) for each in SERVED),
    *JUDGED,
]
