"""The lines of shared files: a document with its sequence number, length and checksum.

{"sequence":                   7,"bytes":        23,"crc32":"1c291ca3","content":{...}}
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import NamedTuple

_HEADER = '{"sequence":%20d,"bytes":%10d,"crc32":"%08x","content":'
HEADER_BYTES = len(_HEADER % (0, 0, 0))
# Where the numbers stand in it.
SEQUENCE, BYTES = slice(12, 32), slice(41, 51)
_END = b"}\n"
AROUND_BYTES = HEADER_BYTES + len(_END)
SMALLEST_HALF_BYTES = 4096
LARGEST_HALF_BYTES = 1 << 24
EMPTY = b"null"


class Entry(NamedTuple):
    """A document with its sequence number. Of two entries the newer is the larger."""

    sequence: int
    content: bytes


NOTHING = Entry(-1, EMPTY)


def encode_line(entry: Entry) -> bytes:
    """Return the line of the file that holds the entry."""
    return encode_header(entry) + entry.content + _END


def encode_header(entry: Entry) -> bytes:
    """Return the beginning of the entry's line, of HEADER_BYTES."""
    # The number counts in the checksum too: it decides which half is the newer one.
    checksum = zlib.crc32(entry.content, entry.sequence & 0xFFFFFFFF)
    return (_HEADER % (entry.sequence, len(entry.content), checksum)).encode()


def image(content: bytes) -> bytes:
    """Return a whole file that holds the document."""
    half_bytes = half_bytes_for(len(content) + AROUND_BYTES)
    return encode_line(Entry(0, content)).ljust(2 * half_bytes, b"\0")


def half_bytes_for(needed: int) -> int:
    """Return the size of a half with so much room: a power of two."""
    half_bytes = max(SMALLEST_HALF_BYTES, 1 << (needed - 1).bit_length())
    if half_bytes > LARGEST_HALF_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return half_bytes
