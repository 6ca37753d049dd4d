"""Scripts for the fake runtime: the bytes that it sends on a connection, and how it ends."""

from __future__ import annotations

import itertools

from tests.ollama.scripted import STREAM, chunk, last, streamed, token
from tests.support.fake_ollama.connection import ClientGone, Connection
from tests.support.fake_ollama.faults import Script
from tests.support.fake_ollama.generate_request import GenerateRequest

_PIECE = b"x" * 65536


def respond(*replies: bytes) -> Script:
    """Send these bytes and keep the connection open."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(b"".join(replies))

    return script


def respond_then_close(reply: bytes) -> Script:
    """Send these bytes and close the connection."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(reply)
        raise ClientGone

    return script


def respond_then_reset(start: bytes = b"") -> Script:
    """Send these bytes and reset the connection: RST instead of FIN."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(start)
        connection.reset()
        raise ClientGone

    return script


def respond_then_hang(start: bytes = b"") -> Script:
    """Send these bytes and then nothing, until the client hangs up."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(start)
        connection.wait_for_disconnect()

    return script


def drip(start: bytes, endless: bytes) -> Script:
    """Send `start`, then `endless` again and again, a byte at a time, until the client hangs up."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(start)
        for byte in itertools.cycle(endless):
            connection.send(bytes([byte]))
            connection.wait(0.02)

    return script


def flood(start: bytes, megabytes: int = 64) -> Script:
    """Send `start` and then this many megabytes."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        connection.send(start)
        for _ in range(megabytes * 16):
            connection.send(chunk(_PIECE) if start is STREAM else _PIECE)
        raise ClientGone

    return script


def generate(text: str, **final: object) -> Script:
    """Send a complete generation of this text."""
    return respond(streamed(token(text), last(**final)))


def by_attempt(first: Script, later: Script) -> Script:
    """Play `first` for the first attempt, `later` for the retries."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        (later if "last answer" in request.prompt else first)(connection, request)

    return script


def without_grammar(refusal: Script, otherwise: Script) -> Script:
    """Play `refusal` for requests with a schema, `otherwise` for others."""

    def script(connection: Connection, request: GenerateRequest) -> None:
        (refusal if isinstance(request.format, dict) else otherwise)(connection, request)

    return script


def echo(connection: Connection, request: GenerateRequest) -> None:
    """Generate the text of the prompt after its first line."""
    generate(request.prompt.partition("\n")[2])(connection, request)
