"""ChunkDecoder: the body is the same however it is divided, and invalid chunks are refused."""

from __future__ import annotations

from collections.abc import Iterable
from http.client import HTTPException, IncompleteRead

import pytest

from mes.ollama.connections import ChunkDecoder

from .scripted import END, chunk

BODY = chunk(b"Hel") + chunk(b"x" * 300) + chunk(b"lo\r\n")
DECODED = b"Hel" + b"x" * 300 + b"lo\r\n"


def decode(received: bytes, *arrivals: bytes) -> list[bytes]:
    reads = iter(arrivals)
    return list(ChunkDecoder(received, lambda: next(reads, b"")))


def cut(data: bytes, size: int) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize("end", [END, b"0\r\nX: y\r\nZ: w\r\n\r\n", b"000;last\r\n\r\n"])
def test_a_body_is_complete_however_it_arrives(size, end):
    assert b"".join(decode(b"", *cut(BODY + end, size))) == DECODED


def test_chunks_that_arrive_together_are_one_piece():
    assert decode(chunk(b"He") + chunk(b"l"), chunk(b"lo") + END) == [b"Hel", b"lo"]


def test_a_part_of_a_chunk_is_yielded_before_the_rest_arrives():
    pieces = iter(ChunkDecoder(b"5\r\nHel", lambda: pytest.fail("it reads more")))
    assert next(pieces) == b"Hel"


def test_extensions_and_all_spellings_of_a_size_are_accepted():
    chunks = b"00a;name=value\r\n0123456789\r\nA \r\n0123456789\r\n"
    assert b"".join(decode(chunks, END)) == b"0123456789" * 2


@pytest.mark.parametrize("length", range(len(BODY + END)))
def test_an_incomplete_body_is_an_error(length):
    with pytest.raises(IncompleteRead):
        decode((BODY + END)[:length])


@pytest.mark.parametrize(
    "invalid",
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
def test_an_invalid_chunk_is_refused_without_reading_more(invalid):
    with pytest.raises(HTTPException) as caught:
        list(ChunkDecoder(chunk(b"Hel") + invalid, lambda: pytest.fail("it reads more")))
    assert not isinstance(caught.value, IncompleteRead)
