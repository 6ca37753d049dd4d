"""Shared files: a JSON document that processes replace whole, under a lock on the file itself.

The file is divided into two halves. Each contains one line of JSON (serialization.py), filled up
with NULs, which a terminal does not show. The half with the higher sequence number counts.
Documents take turns in the halves, even numbers in the first: a writer that is killed leaves the
earlier document whole. A reader needs no lock, because the checksum distinguishes a line that is
being written from a whole one. The space is allocated in advance, so that a full disk refuses no
change. The file is read and written instead of mapped, because a process that touches a mapped
file which was truncated is killed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from mes.config.timed_lock import ProcessLock
from mes.scheduling.file_lock import is_named, write_whole
from mes.scheduling.serialization import (
    AROUND_BYTES,
    BYTES,
    EMPTY,
    HEADER_BYTES,
    LARGEST_HALF_BYTES,
    NOTHING,
    SEQUENCE,
    SMALLEST_HALF_BYTES,
    Entry,
    encode_header,
    encode_line,
    half_bytes_for,
)

# Most documents are shorter, so that one call reads all of them.
_FIRST_READ_BYTES = 4096
# A reader that finds no whole document this many times in a row was not overtaken by writers.
_TRIES = 50
# A repair adds this to the sequence number, so that no document from before it is newer.
_REPAIR_STEP = 1 << 20


class Damaged(Exception):
    """The file contains bytes that no writer has written, or lacks a document that was written."""


class SharedFile:
    """A file with a name in STATE_DIR, opened once and inherited by all processes that use it.

    Its name may be deleted meanwhile; the file stays.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @property
    def is_named(self) -> bool:
        """Whether the name still leads to this file."""
        return is_named(self.fd, self.path)

    def close(self) -> None:
        os.close(self.fd)


class _Half(NamedTuple):
    """One half as it was found. `entry` is None if it contains no whole document."""

    header: bytes
    used_bytes: int
    entry: Entry | None
    damaged: bool


class Handle(ProcessLock):
    """One user's access to a SharedFile: reads, replaces, locks.

    Not for two threads at a time. Each Handle excludes all others from the lock, also those of its
    own process: it opens the file anew, because a lock belongs to an open file and processes share
    those that they inherit.
    """

    def __init__(self, file: SharedFile) -> None:
        super().__init__(os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR | os.O_CLOEXEC))
        # It only ever grows.
        self._half_bytes = self._usual_half_bytes = self._found_half_bytes()
        # The newest document this handle has read or written, and the header of its half.
        self.entry = NOTHING
        self._header = b""
        # The half that the document after it goes into.
        self._next_at = 0
        self._next_header = b""
        self._next_used_bytes = 0

    def close(self) -> None:
        os.close(self._fd)

    # Reading

    def read(self) -> Entry:
        """Return the newest document, without the lock; of a damaged file the last good one."""
        for _ in range(_TRIES):
            if self._catch_up():
                break
            halves = self._scan()
            if _newest(halves) >= self.entry:
                self._adopt(halves)
                break
        return self.entry

    def read_locked(self) -> Entry:
        """Return the newest document, with the lock held. Raises Damaged."""
        if not self._catch_up():
            self.verify()
        return self.entry

    def verify(self) -> None:
        """Read the whole file, with the lock held. Raises Damaged."""
        halves = self._scan()
        if self._is_damaged(halves):
            raise Damaged
        self._adopt(halves)

    def looks_damaged(self) -> bool:
        """Return whether the file is damaged, or else being written at this moment."""
        return self._is_damaged(self._scan())

    # Writing, with the lock held. All of these raise OSError.

    def write(self, content: bytes) -> Entry:
        """Replace the document, after the newest one was read.

        A writer that is killed has changed nothing, nor has one that raises OSError because the
        disk has no room for the document.
        """
        self.ensure_room(len(content))
        self._put(Entry(self.entry.sequence + 1, content))
        return self.entry

    def offer(self, entry: Entry) -> None:
        """Leave an entry for the repair of a damaged file, unless a newer one is there already.

        It goes behind the halves, so that the file counts as damaged until it is repaired.
        """
        newest = self._salvage()
        self._restore_size(newest, entry if entry > newest else newest)
        behind = 2 * self._half_bytes
        if entry > newest:
            write_whole(self._fd, encode_line(entry), behind)
        elif os.fstat(self._fd).st_size == behind:
            write_whole(self._fd, b"\n", behind)

    def repair(self, known: Entry) -> Entry:
        """Make a damaged file whole, with the newest of `known` and the documents in the file.

        The new number is so high that no process has a newer document.
        """
        found = self._salvage()
        newest = max(found, known)
        step = _REPAIR_STEP + newest.sequence % 2  # to an even number, which is the first half's
        self._restore_size(found, newest)
        self._put(Entry(newest.sequence + step, newest.content))
        self._clear_second_half()
        os.ftruncate(self._fd, 2 * self._half_bytes)
        return self.entry

    def create(self, content_bytes: int) -> None:
        """Write the first document, `null`, into an empty file with room for larger ones."""
        self._usual_half_bytes = half_bytes_for(content_bytes + AROUND_BYTES)
        self._restore_size(NOTHING, NOTHING)
        self._put(Entry(0, EMPTY))

    def ensure_room(self, content_bytes: int) -> None:
        """Allocate room for documents of so many bytes, after the newest one was read."""
        if content_bytes + AROUND_BYTES > self._half_bytes:
            self._grow(content_bytes)

    def _is_damaged(self, halves: tuple[_Half, _Half]) -> bool:
        newest = _newest(halves)
        resized = os.fstat(self._fd).st_size != 2 * self._half_bytes
        shortened = self._half_bytes < self._usual_half_bytes
        lost = newest is NOTHING or newest.sequence < self.entry.sequence
        return resized or shortened or lost or any(half.damaged for half in halves)

    def _scan(self) -> tuple[_Half, _Half]:
        self._half_bytes = self._found_half_bytes()
        return self._observe(0), self._observe(1)

    def _found_half_bytes(self) -> int:
        # If the size is no power of two, the file was cut short or something was appended.
        found = 1 << (os.fstat(self._fd).st_size // 2).bit_length() >> 1
        return min(max(found, SMALLEST_HALF_BYTES), LARGEST_HALF_BYTES)

    def _observe(self, index: int) -> _Half:
        at = index * self._half_bytes
        start = os.pread(self._fd, _FIRST_READ_BYTES, at)
        entry = self._entry_at(at, start)
        if entry is None or entry.sequence % 2 != index:
            unused = len(start) >= HEADER_BYTES and not any(start[:HEADER_BYTES])
            return _Half(b"", 0 if unused else self._half_bytes, None, not unused)
        return _Half(start[:HEADER_BYTES], len(entry.content) + AROUND_BYTES, entry, False)

    def _entry_at(self, at: int, start: bytes) -> Entry | None:
        """Return the document at a place of the file; `start` are its first bytes."""
        try:
            sequence, length = int(start[SEQUENCE]), int(start[BYTES])
        except ValueError:
            return None
        content = start[HEADER_BYTES : HEADER_BYTES + length]
        if len(content) < length <= self._half_bytes:
            rest = at + HEADER_BYTES + len(content)
            content += os.pread(self._fd, length - len(content), rest)
        entry = Entry(sequence, content)
        return entry if start.startswith(encode_header(entry)) else None

    def _catch_up(self) -> bool:
        """Read a newer document, if there is one; return False if the whole file must be read."""
        start = os.pread(self._fd, _FIRST_READ_BYTES, self._next_at)
        # A newer document would have taken the place of the one before this.
        if self._next_header and start.startswith(self._next_header):
            return True
        if self._next_at not in (0, self._half_bytes):  # the size has changed since the last read
            return False
        other_at = self._half_bytes - self._next_at
        other = os.pread(self._fd, _FIRST_READ_BYTES, other_at)
        try:
            lead = int(start[SEQUENCE]) - int(other[SEQUENCE])
        except ValueError:
            return False
        if lead == 1:
            return self._take(self._next_at, start, other)
        return lead == -1 and self._take(other_at, other, start)

    def _take(self, at: int, start: bytes, older: bytes) -> bool:
        entry = self._entry_at(at, start)
        if entry is None or entry.sequence <= self.entry.sequence or entry.sequence % 2 != (at > 0):
            return False
        header, next_header = start[:HEADER_BYTES], older[:HEADER_BYTES]
        self._note(entry, header, next_header, self._used_bytes(next_header))
        return True

    def _used_bytes(self, header: bytes) -> int:
        """Return how much of its half the document with this header takes up."""
        try:
            used_bytes = int(header[BYTES]) + AROUND_BYTES
        except ValueError:
            used_bytes = self._half_bytes
        return max(0, min(used_bytes, self._half_bytes))

    def _adopt(self, halves: tuple[_Half, _Half]) -> None:
        self._usual_half_bytes = self._half_bytes
        entry = _newest(halves)
        current, following = halves[entry.sequence % 2], halves[1 - entry.sequence % 2]
        self._note(entry, current.header, following.header, following.used_bytes)

    def _note(self, entry: Entry, header: bytes, next_header: bytes, next_used_bytes: int) -> None:
        self.entry, self._header = entry, header
        self._next_at = (entry.sequence + 1) % 2 * self._half_bytes
        self._next_header, self._next_used_bytes = next_header, next_used_bytes

    def _put(self, entry: Entry) -> None:
        """Write an entry into its half, over all that was there before."""
        line, at = encode_line(entry), entry.sequence % 2 * self._half_bytes
        write_whole(self._fd, line.ljust(self._next_used_bytes, b"\0"), at)
        self._note(entry, line[:HEADER_BYTES], self._header, len(self.entry.content) + AROUND_BYTES)

    def _salvage(self) -> Entry:
        """Return the newest document in a damaged file, offered ones included."""
        halves, behind = self._scan(), 2 * self._half_bytes
        offered = self._entry_at(behind, os.pread(self._fd, _FIRST_READ_BYTES, behind))
        return max(_newest(halves), offered or NOTHING)

    def _restore_size(self, found: Entry, entry: Entry) -> None:
        """Give a new or damaged file, of which only `found` is of use, room for an entry."""
        least = max(self._usual_half_bytes, half_bytes_for(len(entry.content) + AROUND_BYTES))
        self._half_bytes = least if found is NOTHING else max(self._half_bytes, least)
        if found is NOTHING and os.fstat(self._fd).st_size > 3 * self._half_bytes:
            os.ftruncate(self._fd, 2 * self._half_bytes)
        os.posix_fallocate(self._fd, 0, 2 * self._half_bytes)
        self._header, self._next_used_bytes = b"", self._half_bytes

    def _clear_second_half(self) -> None:
        write_whole(self._fd, bytes(self._half_bytes), self._half_bytes)
        self._next_header, self._next_used_bytes = b"", 0

    def _grow(self, content_bytes: int) -> None:
        """Make room for a larger document; a process that is killed meanwhile harms nothing."""
        # The second half moves, so the document has to be in the first, which stays.
        if self.entry.sequence % 2:
            self._put(Entry(self.entry.sequence + 1, self.entry.content))
        # Cleared, because a process that knows the smaller halves would take it for current.
        self._clear_second_half()
        half_bytes = half_bytes_for(content_bytes + AROUND_BYTES)
        os.posix_fallocate(self._fd, 0, 2 * half_bytes)
        self._half_bytes = self._usual_half_bytes = self._next_at = half_bytes


def _newest(halves: tuple[_Half, _Half]) -> Entry:
    return max(halves[0].entry or NOTHING, halves[1].entry or NOTHING)
