"""Chunks: the body is the same however they come, and what is none is refused."""

from __future__ import annotations

from collections.abc import Iterable
from http.client import HTTPException, IncompleteRead

import pytest

from mes.ollama.connections import ChunkDecoder

from .scripted import END, chunk

BODY = chunk(b"Hel") + chunk(b"x" * 300) + chunk(b"lo\r\n")
SAID = b"Hel" + b"x" * 300 + b"lo\r\n"


def read(begun: bytes, *arrivals: bytes) -> list[bytes]:
    coming = iter(arrivals)
    return list(ChunkDecoder(begun, lambda: next(coming, b"")))


def cut(data: bytes, size: int) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize("end", [END, b"0\r\nX: y\r\nZ: w\r\n\r\n", b"000;last\r\n\r\n"])
def test_a_body_is_whole_however_it_arrives(size, end):
    assert b"".join(read(b"", *cut(BODY + end, size))) == SAID


def test_what_arrives_together_is_one_piece():
    assert read(chunk(b"He") + chunk(b"l"), chunk(b"lo") + END) == [b"Hel", b"lo"]


def test_a_part_of_a_chunk_is_passed_on_before_the_rest_is_there():
    pieces = iter(ChunkDecoder(b"5\r\nHel", lambda: pytest.fail("it waits")))
    assert next(pieces) == b"Hel"


def test_extensions_and_any_spelling_of_a_size_are_understood():
    chunks = b"00a;name=value\r\n0123456789\r\nA \r\n0123456789\r\n"
    assert b"".join(read(chunks, END)) == b"0123456789" * 2


@pytest.mark.parametrize("length", range(len(BODY + END)))
def test_a_body_that_breaks_off_is_never_taken_for_whole(length):
    with pytest.raises(IncompleteRead):
        read((BODY + END)[:length])


@pytest.mark.parametrize(
    "nonsense",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"1\n",
        b"1\r\nxy",  # more than its size
        b"1\r\nx\n",
        b"5;" + b"x" * 5000,
        END + b"HTTP/1.1 200 OK",
    ],
)
def test_what_is_no_chunk_is_refused_as_soon_as_it_shows(nonsense):
    with pytest.raises(HTTPException) as told:
        list(ChunkDecoder(chunk(b"Hel") + nonsense, lambda: pytest.fail("it waits")))
    assert not isinstance(told.value, IncompleteRead)
