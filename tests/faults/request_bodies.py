"""Invalid inferences: their bodies, fields, sizes, content types and models."""

from __future__ import annotations

import gzip
import json
from functools import partial

from tests.faults import hostile_texts
from tests.faults.client import (
    BEARER,
    JSON,
    MODEL,
    Client,
    Response,
    inference,
    request_head,
    send_raw,
)
from tests.faults.fault import MALFORMED, SERVED, Expected, Row
from tests.faults.runtime_faults import ECHO

ABSENT, FAILING = "absent:1b", "failing:1b"
"""A model that is in the catalog and not in the runtime; one that never loads."""

TOO_LARGE = Expected(413, "content_too_large")
WRONG_TYPE = Expected(415, "unsupported_media_type")
UNKNOWN = Expected(404, "model_not_found")


def bodies() -> list[Row]:
    """Return faults of bodies that are not valid JSON."""
    return [
        (case, name, partial(Client.post, body=body), MALFORMED)
        for case, name, body in [
            ("T3", "a timeout of NaN", b'{"model_id": "m", "prompt": "p", "timeout": NaN}'),
            ("I3", "100,000 levels", b"[" * 100_000),
            ("I4", "invalid UTF-8", b'{"prompt": "\xff"}'),
            ("I4", "UTF-16", inference().decode().encode("utf-16")),
            ("I4", "a NUL byte", b'{"prompt": "\0"}'),
            ("I4", "half a surrogate pair", b'{"prompt": "\\udc00"}'),
            ("I5", "Infinity", b'{"temperature": -Infinity}'),
            ("I5", "1e400", b'{"temperature": 1e400}'),
            ("I5", "a number of 4,301 digits", b'{"seed": ' + b"9" * 4301 + b"}"),
            ("I6", "a model twice", b'{"model_id": "a", "model_id": "b"}'),
            ("I6", "a key twice, deep", b'{"json_schema": {"a": {"b": 1, "b": 1}}}'),
            *(("I7", f"not JSON: {name}", text) for name, text in hostile_texts.NOT_JSON.items()),
        ]
    ]


def _marked() -> list[Row]:
    marked = b"\xef\xbb\xbf" + inference()
    return [("I4", "a byte order mark", partial(Client.post, body=marked), SERVED)]


def fields() -> list[Row]:
    """Return faults of inferences with one invalid field."""
    wrong = [
        ("T3", {"timeout": 0}),
        ("T3", {"timeout": -1}),
        ("T3", {"timeout": 1e308}),
        ("T3", {"timeout": "5"}),
        ("I5", {"max_tokens": 2**63}),
        ("I9", {"colour": "red"}),
        ("I9", {"prompt": ""}),
        ("I9", {"prompt": ["a"]}),
        ("I9", {"max_tokens": 1.5}),
        ("I9", {"stop": [""]}),
        ("I9", {"max_attempts": True}),
        ("I10", {"options": {"num_ctx": 4096}}),
        ("I10", {"num_ctx": 10**9}),
        ("I10", {"num_gpu": 99}),
        ("I10", {"main_gpu": 1}),
        ("I10", {"n_discard": -1}),
        ("I11", {"keep_alive": -1}),
        ("I11", {"keep_alive": "999999h"}),
        ("I11", {"keep_alive": 0}),
    ]
    with_names = [(case, each, next(iter(each))) for case, each in wrong]
    return [
        (
            case,
            json.dumps(each),
            partial(_with_fields, each),
            Expected(422, "request_invalid", also=partial(_error_is_at, field)),
        )
        for case, each, field in with_names
    ]


def images() -> list[Row]:
    """Return faults of conversations with an invalid image."""
    wrong = ("http://127.0.0.1:9/a.png", "/etc/passwd", "aGVsbG8", "data:image/png;base64,aGVsbG8=")
    expected = Expected(422, "request_invalid", also=partial(_error_is_at, "messages/0/images/0"))
    return [("I14", each, partial(_with_image, each), expected) for each in wrong]


def _with_image(image: str, client: Client) -> Response:
    message = {"role": "user", "content": "What is this?", "images": [image]}
    return client.post(json.dumps({"model_id": MODEL, "messages": [message]}).encode())


def _with_fields(fields: dict[str, object], client: Client) -> Response:
    return client.post(json.dumps({"model_id": MODEL, "prompt": "Hello", **fields}).encode())


def _error_is_at(field: str, response: Response) -> bool:
    return [each["pointer"] for each in response.json["errors"]] == [f"/{field}"]


def sizes() -> list[Row]:
    """Return faults of bodies that are too large, or shorter than announced."""
    many = json.dumps({f"k{number}": 0 for number in range(60_000)}).encode()
    head = ("POST /v1/inference HTTP/1.1", "Host: mes", BEARER, JSON)
    chunks = b"10000\r\n" + b" " * 65536 + b"\r\n"
    return [
        ("I1", "too long, and sent", partial(Client.post, body=b" " * 1_100_000), TOO_LARGE),
        ("I1", "too long in chunks",
         send_raw(*head, "Transfer-Encoding: chunked", body=chunks * 17), TOO_LARGE),
        ("I1", "packed", lambda client: client.post(
            gzip.compress(inference()), JSON, "Content-Encoding: gzip"), WRONG_TYPE),
        ("I2", "a length of 10^30", send_raw(*head, f"Content-Length: {10**30}"), TOO_LARGE),
        ("I2", "shorter than its length", lambda client: client.send(
            request_head(*head, "Content-Length: 999") + inference(), half_close=True), MALFORMED),
        ("I2", "nothing", partial(Client.post, body=b""), MALFORMED),
        ("I3", "60,000 keys", partial(Client.post, body=many),
         Expected(422, "request_invalid", also=lambda response: len(response.body) < 20_000)),
        ("I3", "a string of 10 MB announced", send_raw(*head, "Content-Length: 10000000"),
         TOO_LARGE),
    ]  # fmt: skip


def types() -> list[Row]:
    """Return faults of content types other than JSON in UTF-8."""
    content_types = (
        "text/plain",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    )
    return [("I8", each, partial(_as_type, each), WRONG_TYPE) for each in content_types]


def _as_type(content_type: str, client: Client) -> Response:
    return client.post(inference(), f"Content-Type: {content_type}")


def models() -> list[Row]:
    """Return faults of models that do not exist or cannot be used."""
    names = ["../x", "%2e%2e", "a\0b", "a\nb", "x" * 10_000, "a b", "-flag", "http://x/y",
             f"{MODEL}@sha256:00", "\u202emistral:7b", "mistr\u0430l:7b", "con"]  # fmt: skip
    return [
        *(("I12", f"{name!a:.40}", partial(_for_model, name), UNKNOWN) for name in names),
        ("I12", "in capitals", partial(_for_model, MODEL.upper()), SERVED),
        ("U13", "not pulled", partial(_for_model, ABSENT), Expected(404, "model_not_pulled")),
        (
            "U15",
            "no memory for the model",
            partial(_for_model, FAILING),
            Expected(
                503, "model_unavailable", also=lambda response: "memory" in response.json["detail"]
            ),
        ),
    ]


def _for_model(name: str, client: Client) -> Response:
    return client.post(json.dumps({"model_id": name, "prompt": "Hello"}).encode())


def texts() -> list[Row]:
    """Return requests whose text must come back unchanged."""

    def echoed(text: str, client: Client) -> Response:
        return client.provoke(f"{ECHO}\n{text}")

    def same(text: str, response: Response) -> bool:
        return bool(response.json["output"] == text)

    return [
        ("I13", name, partial(echoed, text), Expected(200, also=partial(same, text)))
        for name, text in hostile_texts.HOSTILE.items()
    ]


ROWS = [*bodies(), *_marked(), *fields(), *images(), *sizes(), *types(), *models(), *texts()]
