"""The store: the shared state in one document, changed under one lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mes.scheduling.copy import Copy
from mes.scheduling.document import decode, encode
from mes.scheduling.state import State
from mes.shared import Document, Memory


class Store:
    """The state in the memory that the workers of a service share.

    For the threads of a process and for all processes that inherit the memory. What stands in it
    is whole at any time, so a reader needs no lock. Whoever comes first finds it empty and begins
    with what the copy has kept.
    """

    def __init__(self, memory: Memory, copy: Copy, *, max_loaded: int) -> None:
        self._max_loaded = max_loaded
        self._copy = copy
        self._document = Document(memory)
        self._threads = threading.Lock()
        self._state: State | None = None
        self._version, self._content = 0, b""
        self._snapshots = threading.Lock()
        self._snapshot: State | None = None
        self._snapshot_version = 0

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """The state, to be looked at and changed while nobody else does either.

        Left by an exception it changes nothing. Keep it short: no network, no sleep.
        """
        with self._threads, self._document:
            state = self._current()
            # Half changed, should the block be left by an exception.
            self._state = None
            yield state
            content = encode(state)
            if content != self._content:
                self._version, self._content = self._document.write(content), content
            self._state = state

    def read(self) -> State:
        """The state as it last was, to report it: not to act on it, and never to change it."""
        with self._snapshots:
            if self._snapshot is None or self._document.version() != self._snapshot_version:
                self._snapshot_version, content = self._document.read()
                self._snapshot = self._decoded(content) or State(self._max_loaded)
            return self._snapshot

    def save(self) -> None:
        """Make the copy agree with the state. One worker at a time. Raises OSError."""
        self._copy.save(*self._document.read())

    def close(self) -> None:
        """Let go of the memory. Nothing else may be asked of this store afterwards."""
        self._document.close()

    def _current(self) -> State:
        if self._state is None or self._document.version() != self._version:
            self._version, self._content = self._document.read()
            self._state = self._decoded(self._content) or self._copy.recall(self._max_loaded)
        return self._state

    def _decoded(self, content: bytes) -> State | None:
        return decode(content, self._max_loaded) if content else None
