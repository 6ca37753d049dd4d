"""Requests with invalid or unusual headers, and with invalid keys."""

from __future__ import annotations

from functools import partial

from tests.faults.client import BEARER, JSON, Client, Response, send_raw
from tests.faults.fault import MALFORMED, SERVED, Expected, Provoke, Row
from tests.support.service import KEY

LOCKED_OUT = Expected(401, "unauthorized", {"www-authenticate": 'Bearer realm="MES"'})


def headers() -> list[Row]:
    """Return faults of requests that are invalid or unusual HTTP."""
    host = "Host: mes"
    return [
        ("I16", "a header of 9 kB", send_raw("GET /health HTTP/1.1", host, "A: " + "b" * 9000),
         Expected(431, "headers_too_large")),
        ("I16", "200 headers", send_raw("GET /health HTTP/1.1", host, *["A: b"] * 200),
         Expected(431, "headers_too_large")),
        ("I16", "NUL in a header", send_raw("GET /health HTTP/1.1", host, "A: b\0c"), MALFORMED),
        ("I16", "an odd expectation", send_raw("GET /health HTTP/1.1", host, "Expect: rain"),
         Expected(417, "expectation_failed")),
        ("I16", "an id of 5 kB",
         send_raw("GET /health HTTP/1.1", host, "X-Request-ID: " + "x" * 5000),
         Expected(200, also=lambda response: len(response.headers["x-request-id"]) < 129)),
        ("I16", "an id with markup", send_raw("GET /health HTTP/1.1", host, "X-Request-ID: <b>"),
         Expected(200, also=lambda response: "<" not in response.headers["x-request-id"])),
        ("I16", "an id that is not ASCII", send_raw("GET /health HTTP/1.1", host,
         "X-Request-ID: \xe4"), SERVED),
        ("I17", "a length and chunks", send_raw("POST /v1/inference HTTP/1.1", host, BEARER, JSON,
         "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), MALFORMED),
        ("I17", "two lengths", send_raw("POST /v1/inference HTTP/1.1", host, BEARER, JSON,
         "Content-Length: 2", "Content-Length: 3", body=b"{}"), MALFORMED),
        ("I17", "a folded header", send_raw("GET /health HTTP/1.1", host, "A: b", " c"), MALFORMED),
        ("I18", "HTTP/1.0", send_raw("GET /health HTTP/1.0"), SERVED),
        ("I18", "HTTP/0.9", lambda client: client.send(b"GET /health\r\n\r\n"), MALFORMED),
        ("I18", "HTTP/2", lambda client: client.send(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), MALFORMED),
        ("I18", "an upgrade", send_raw("GET /health HTTP/1.1", host, "Connection: Upgrade",
         "Upgrade: h2c"), SERVED),
        ("I18", "TRACE", partial(Client.request, first="TRACE /health"),
         Expected(405, "method_not_allowed")),
        ("I18", "BREW", partial(Client.request, first="BREW /health"),
         Expected(405, "method_not_allowed")),
        ("I18", "CONNECT", send_raw("CONNECT mes:443 HTTP/1.1", host),
         Expected(405, "method_not_allowed")),
        ("I18", "HEAD", partial(Client.request, first="HEAD /health"),
         Expected(200, also=lambda response: response.body == b"")),
        ("I18", "OPTIONS", partial(Client.request, first="OPTIONS /v1/inference"), SERVED),
    ]  # fmt: skip


def keys() -> list[Row]:
    """Return faults with invalid keys.

    Each client has its own address, so that the limit on wrong keys does not apply.
    """
    path = "/v1/models"
    wrong = {
        "none": (),
        "an empty header": ("Authorization: ",),
        "a scheme alone": ("Authorization: Bearer",),
        "a wrong one": ("Authorization: Bearer wrong",),
        "another scheme": (f"Authorization: Basic {KEY}",),
        "with an underscore": (f"Authorization_: Bearer {KEY}", f"X_API_Key: {KEY}"),
        "not ASCII": ("Authorization: Bearer \xe4\xff",),
        "of 7 kB": (f"Authorization: Bearer {'k' * 7000}",),
    }
    two = {
        "a wrong one second": (BEARER, "Authorization: Bearer wrong"),
        "a wrong one first": ("Authorization: Bearer wrong", BEARER),
        "two in one": (f"{BEARER}, Bearer wrong",),
    }
    trusted = {
        "claims an inside address": ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: admin"),
        "by redirection": ("X-Accel-Redirect: /v1/models", "X-Original-URL: /health"),
    }
    return [
        *(("A1", name, _without_key(path, *lines), LOCKED_OUT) for name, lines in wrong.items()),
        ("A1", "in the query", _without_key(f"{path}?api_key={KEY}&key={KEY}"), LOCKED_OUT),
        *(("A2", name, _without_key(path, *lines), LOCKED_OUT) for name, lines in two.items()),
        ("A3", "bearer", _without_key(path, f"authorization: bearer {KEY}"), SERVED),
        ("A3", "blanks around it", _without_key(path, f"Authorization:  Bearer {KEY} \t"), SERVED),
        *(("A8", name, _without_key(path, *lines), LOCKED_OUT) for name, lines in trusted.items()),
    ]


def _without_key(path: str, *lines: str) -> Provoke:
    return lambda client: client.request(f"GET {path}", *lines, key=False)


def guess(client: Client) -> Response:
    """Send so many wrong keys that one of the two workers gets at least eleven."""
    guesser = Client(client.service, address="127.66.66.66", seed=client.rng.getrandbits(32))
    responses = [
        guesser.request("GET /v1/models", "X-API-Key: wrong", key=False) for _ in range(21)
    ]
    client.ids += guesser.ids
    assert {each.status for each in responses} <= {401, 429}
    return next(each for each in responses if each.status == 429)


ROWS = [*headers(), *keys(), ("A6", "guesses keys", guess, Expected(429, "rate_limited"))]
