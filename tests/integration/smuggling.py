"""Requests whose end two servers might see in different places, and other malformed requests."""

from __future__ import annotations

from tests.support.service import KEY

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: mes\r\n\r\n"
"""The second request that the service would receive if smuggling worked."""

_KEY = b"Authorization: Bearer " + KEY.encode()
_LENGTH = b"Content-Length: %d" % len(SMUGGLED)
_CHUNKS = b"0\r\n\r\n" + SMUGGLED


def get(*lines: bytes, path: bytes = b"/health", end: bytes = b"\r\n") -> bytes:
    """Return a GET request with these header lines after the host."""
    return end.join((b"GET " + path + b" HTTP/1.1", b"Host: mes", *lines, b"", b""))


def post(*lines: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    """Return an inference request with the key, these header lines and any body."""
    common = (
        b"Host: mes",
        b"Authorization: Bearer " + KEY.encode(),
        b"Content-Type: application/json",
    )
    first = b"POST /v1/inference HTTP/" + version
    return b"\r\n".join((first, *common, *lines, b"", b"")) + body


def _chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def _bare(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((first, *lines, b"", b""))


# Rejected by nginx, so the service never receives them.
REFUSED = {
    # two lengths
    "length-and-chunks": post(
        b"Content-Length: 4", b"Transfer-Encoding: chunked", body=_CHUNKS
    ),
    "chunks-and-length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"25\r\n" + SMUGGLED
    ),
    "two-lengths": post(b"Content-Length: 0", _LENGTH, body=SMUGGLED),
    "two-equal-lengths": post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"),
    "list-of-lengths": post(b"Content-Length: 2, 2", body=b"{}"),
    # invalid lengths
    "length-with-plus": post(b"Content-Length: +2", body=b"{}"),
    "length-below-zero": post(b"Content-Length: -1", body=b"{}"),
    "length-in-hex": post(b"Content-Length: 0x2", body=b"{}"),
    "length-with-underscore": post(b"Content-Length: 1_0", body=b"{}"),
    "length-with-space": post(b"Content-Length: 1 2", body=b"{}"),
    "length-empty": post(b"Content-Length: ", body=b"{}"),
    "length-beyond-numbers": post(b"Content-Length: 1" + b"0" * 30, body=b"{}"),
    # codings that one of two servers might not understand
    "coding-with-space-before-colon": post(
        b"Transfer-Encoding : chunked", b"Content-Length: 4", body=_CHUNKS
    ),
    "length-with-space-before-colon": post(b"Content-Length : %d" % len(SMUGGLED), body=SMUGGLED),
    "coding-folded": post(
        b"Transfer-Encoding:\r\n chunked", b"Content-Length: 4", body=_CHUNKS
    ),
    "coding-unknown": post(b"Transfer-Encoding: xchunked", b"Content-Length: 4", body=_CHUNKS),
    "coding-identity": post(b"Transfer-Encoding: identity", b"Content-Length: 2", body=b"{}"),
    "coding-twice": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=_CHUNKS
    ),
    "coding-list": post(b"Transfer-Encoding: chunked, identity", body=_CHUNKS),
    "coding-gzip": post(b"Transfer-Encoding: gzip, chunked", body=_CHUNKS),
    "coding-quoted": post(b'Transfer-Encoding: "chunked"', body=_CHUNKS),
    "coding-after-vertical-tab": post(
        b"Transfer-Encoding: \x0bchunked", b"Content-Length: 4", body=_CHUNKS
    ),
    "coding-in-http-1.0": post(
        b"Connection: keep-alive", b"Transfer-Encoding: chunked", body=_CHUNKS, version=b"1.0"
    ),
    # chunks
    "chunk-below-zero": _chunked(b"-1\r\n{}\r\n" + _CHUNKS),
    "chunk-in-hex": _chunked(b"0x2\r\n{}\r\n" + _CHUNKS),
    "chunk-with-plus": _chunked(b"+2\r\n{}\r\n" + _CHUNKS),
    "chunk-with-underscore": _chunked(b"0_2\r\n{}\r\n" + _CHUNKS),
    "chunk-beyond-numbers": _chunked(b"f" * 18 + b"\r\n{}\r\n" + _CHUNKS),
    "chunk-over-32-bits": _chunked(b"100000002\r\n{}\r\n" + _CHUNKS),
    "chunk-without-size": _chunked(b"\r\n{}\r\n" + _CHUNKS),
    "chunk-without-end": _chunked(b"2\r\n{}" + _CHUNKS),
    # lines
    "folded-line": get(b"X-A: b\r\n c"),
    "bare-cr": get(b"X-A: b\rTransfer-Encoding: chunked"),
    "nul-in-value": get(b"X-A: b\0c"),
    "nul-in-name": get(b"X-\0A: b"),
    "space-in-name": get(b"X A: b"),
    "no-name": get(b": b"),
    "space-before-first-name": _bare(b"GET /health HTTP/1.1", b" Host: a", b"Host: b"),
    # paths and hosts
    "nul-in-path": get(path=b"/hea\0lth"),
    "encoded-nul-in-path": get(path=b"/hea%00lth"),
    "bad-encoding-in-path": get(path=b"/hea%zzlth"),
    "path-above-the-root": get(path=b"/v1/../../health"),
    "no-host": _bare(b"GET /health HTTP/1.1"),
    "empty-host": _bare(b"GET /health HTTP/1.1", b"Host: "),
    "two-hosts": get(b"Host: other"),
    "path-in-host": _bare(b"GET /health HTTP/1.1", b"Host: a/b"),
    "space-in-host": _bare(b"GET /health HTTP/1.1", b"Host: a b"),
    "address-without-host": get(path=b"http:///health"),
    "host-and-port-for-a-path": get(path=b"mes:80"),
    # methods and versions
    "trace": _bare(b"TRACE /health HTTP/1.1", b"Host: mes"),
    "connect": _bare(b"CONNECT mes:80 HTTP/1.1", b"Host: mes"),
    "lower-case-method": _bare(b"get /health HTTP/1.1", b"Host: mes"),
    "tabs-for-spaces": _bare(b"GET\t/health\tHTTP/1.1", b"Host: mes"),
    "http-0.9": b"GET /health\r\n",
    "http-2-in-words": _bare(b"GET /health HTTP/2.0", b"Host: mes"),
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # sizes
    "header-of-9-kB": get(b"X-A: " + b"b" * 9000),
    "path-of-9-kB": get(path=b"/" + b"a" * 9000),
}  # fmt: skip

# nginx accepts these and forwards one clean request each.
CLEANED = {
    "bare-lf": get(end=b"\n"),
    "chunk-with-space": _chunked(b"2 \r\n{}\r\n0\r\n\r\n"),
    "chunk-extension-ending-in-lf": _chunked(b"2;\n{}\r\n0\r\n\r\n"),
    "chunks-ending-in-lf": _chunked(b"2\n{}\n0\n\n"),
    "length-among-trailers": _chunked(b"0\r\n" + _LENGTH + b"\r\n\r\n"),
    "coding-in-upper-case": post(b"Transfer-Encoding: CHUNKED", body=b"0\r\n\r\n"),
    "coding-with-underscore": post(
        b"Transfer_Encoding: chunked", b"Content-Length: 2", body=b"{}"
    ),
    "script-name": get(b"SCRIPT_NAME: /v1"),
    "length-named-as-hop": post(
        b"Connection: Content-Length", _LENGTH, body=SMUGGLED
    ),
    "get-with-a-body": get(_LENGTH) + SMUGGLED,
    "line-without-colon": get(b"Garbage"),
    "address-of-another-host": get(path=b"http://other/health"),
    "address-of-another-scheme": get(path=b"ftp://other/health"),
    "user-in-host": _bare(b"GET /health HTTP/1.1", b"Host: user@mes"),
    "upgrade-to-http-2": get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
    "unknown-method": _bare(b"BOGUS /health HTTP/1.1", b"Host: mes"),
    "unknown-expectation": post(b"Expect: 200-ok", b"Content-Length: 2", body=b"{}"),
    "http-1.2": _bare(b"GET /health HTTP/1.2", b"Host: mes"),
}  # fmt: skip
