"""The JSON body of a request."""

from __future__ import annotations

import json
from email.message import Message
from io import BufferedIOBase
from typing import Any

from .errors import BadRequest, TooLarge

LARGEST = 64 << 20


def _refuse(constant: str) -> None:
    raise ValueError(f"invalid character '{constant[0]}' looking for beginning of value")


# Python would take NaN and Infinity, which are no JSON.
DECODER = json.JSONDecoder(parse_constant=_refuse)


def read(headers: Message, file: BufferedIOBase) -> bytes:
    """All of it, so that the next request on the connection is found; TooLarge"""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return _read_chunks(file)
    length = headers.get("Content-Length") or "0"
    if not length.isdecimal():
        raise BadRequest("invalid Content-Length")
    return file.read(_bounded(int(length)))


def parse(raw: bytes) -> dict[str, Any]:
    """The object in it; BadRequest in Ollama's words. What follows the object is ignored"""
    text = raw.decode("utf-8", "replace").lstrip()
    if not text:
        raise BadRequest("missing request body")
    try:
        value, _ = DECODER.raw_decode(text)
    except json.JSONDecodeError as exc:
        raise BadRequest(_as_go_says_it(exc)) from exc
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"json: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest("json: cannot unmarshal into a request: an object is expected")
    return value


def _read_chunks(file: BufferedIOBase) -> bytes:
    body = b""
    while size := _chunk_size(file.readline(64)):
        body += file.read(_bounded(size, len(body)))
        file.readline(64)
    while file.readline(1024).strip():
        pass  # trailers
    return body


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError as exc:
        raise BadRequest("invalid chunk") from exc


def _bounded(size: int, read: int = 0) -> int:
    if size + read > LARGEST:
        raise TooLarge("http: request body too large")
    return size


def _as_go_says_it(exc: json.JSONDecodeError) -> str:
    rest = exc.doc[exc.pos : exc.pos + 1]
    if not rest:
        return "unexpected EOF"
    wanted = "object key string" if "property name" in exc.msg else "value"
    return f"invalid character '{rest}' looking for beginning of {wanted}"
