"""Chunks: a body of a length that nobody knew, taken out of its frames (RFC 9112, 7.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.client import HTTPException, IncompleteRead

# A frame begins with the line end that closes the one before. Extensions say nothing to us.
_HEAD = re.compile(rb"\r\n([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")
_HEAD_BEGUN = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]+[ \t]*(?:;[^\r\n]*)?\r?)?)?)?")
_LONGEST_HEAD = 4096
_LONGEST_TRAILER = 65536


def decode_chunks(begun: bytes, read: Callable[[], bytes]) -> Iterator[bytes]:
    """The body of which this much has come: each piece is all, or nothing, that one read brings.

    Raises IncompleteRead where the chunks break off, HTTPException where they are none or where
    something follows the last of them.
    """
    data, left = b"\r\n" + begun, 0
    while True:
        pieces: list[bytes] = []
        at, ended = 0, False
        while at < len(data) and not ended:
            if left:
                piece = data[at : at + left]
                pieces.append(piece)
                at += len(piece)
                left -= len(piece)
            elif head := _HEAD.match(data, at):
                at, left = head.end(), int(head[1], 16)
                ended = not left
            else:
                break
        yield b"".join(pieces)
        if ended:
            return (yield from _pass_over_trailer(data[at:], read))
        begun = data[at:]
        if begun not in (b"", b"\r\n"):
            _check_head(begun)
        arrived = read()
        if not arrived:
            raise IncompleteRead(b"")
        data = begun + arrived


def _check_head(begun: bytes) -> None:
    """Can this become the head of a chunk?"""
    if len(begun) > _LONGEST_HEAD or not _HEAD_BEGUN.fullmatch(begun):
        raise HTTPException("a chunk has no proper head")


def _pass_over_trailer(begun: bytes, read: Callable[[], bytes]) -> Iterator[bytes]:
    trailer = b"\r\n" + begun
    while b"\r\n\r\n" not in trailer:
        arrived = read()
        if not arrived or len(trailer) > _LONGEST_TRAILER:
            raise IncompleteRead(b"")
        trailer += arrived
        yield b""
    if trailer.index(b"\r\n\r\n") + 4 < len(trailer):
        raise HTTPException("something follows the last chunk")
