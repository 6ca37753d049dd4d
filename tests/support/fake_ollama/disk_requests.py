"""Copies and deletions of names on the fake's disk."""

from __future__ import annotations

from typing import Any

from tests.support.fake_ollama.connection import Connection, HttpRequest
from tests.support.fake_ollama.disk import Disk
from tests.support.fake_ollama.generate_request import checked_name, parse
from tests.support.fake_ollama.responses import ErrorResponse

# As in Ollama, there is no content type.
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def copy(request: HttpRequest, disk: Disk, connection: Connection) -> None:
    body = parse(request.body)
    if not disk.copy(body["source"], body["destination"]):
        raise ErrorResponse(404, f'model "{body["source"]}" not found')
    connection.send(_EMPTY)


def delete(body: dict[str, Any], disk: Disk, connection: Connection) -> None:
    name = checked_name(body.get("model") or body.get("name") or "")
    if not disk.delete(name):
        raise ErrorResponse(404, f"model '{name}' not found")
    connection.send(_EMPTY)
