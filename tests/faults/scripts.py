"""Scripts for the fake runtime: what it does on a connection, told in bytes."""

from __future__ import annotations

import itertools

from tests.ollama.scripted import STREAM, chunk, last, streamed, token
from tests.support.fake_ollama.connection import ClientGone, Connection
from tests.support.fake_ollama.faults import Script
from tests.support.fake_ollama.generate_request import GenerateRequest

_PIECE = b"x" * 65536


def says(*replies: bytes) -> Script:
    """Answers with these bytes and keeps the connection open."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(b"".join(replies))

    return script


def ends(reply: bytes) -> Script:
    """Sends these bytes and closes the connection."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(reply)
        raise ClientGone

    return script


def resets(start: bytes = b"") -> Script:
    """Sends these bytes, and RST instead of FIN."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(start)
        connection.reset()
        raise ClientGone

    return script


def no_op(start: bytes = b"") -> Script:
    """Sends these bytes and then nothing, until the client has had enough."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(start)
        connection.wait_for_disconnect()

    return script


def drips(start: bytes, endless: bytes) -> Script:
    """Sends a byte at a time, until the client has had enough."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(start)
        for byte in itertools.cycle(endless):
            connection.send(bytes([byte]))
            connection.wait(0.02)

    return script


def floods(start: bytes, megabytes: int = 64) -> Script:
    """Sends far more than anybody wants."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        connection.send(start)
        for _ in range(megabytes * 16):
            connection.send(chunk(_PIECE) if start is STREAM else _PIECE)
        raise ClientGone

    return script


def tells(text: str, **final: object) -> Script:
    """A whole generation of this text."""
    return says(streamed(token(text), last(**final)))


def in_turn(first: Script, later: Script) -> Script:
    """One script for the first attempt, another for those that tell what was wrong with it."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        (later if "last answer" in ask.prompt else first)(connection, ask)

    return script


def under_grammar(refusal: Script, otherwise: Script) -> Script:
    """Refuses to be held to a schema."""

    def script(connection: Connection, ask: GenerateRequest) -> None:
        (refusal if isinstance(ask.format, dict) else otherwise)(connection, ask)

    return script


def echo(connection: Connection, ask: GenerateRequest) -> None:
    """Says what stands in the prompt's further lines."""
    tells(ask.prompt.partition("\n")[2])(connection, ask)
