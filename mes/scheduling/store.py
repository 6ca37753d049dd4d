"""The store: the shared state in one file, changed under one lock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mes.scheduling.document import decode, encode
from mes.scheduling.files import FileLock, HeldFile
from mes.scheduling.state import State

log = logging.getLogger(__name__)


class Store:
    """`STATE_DIR/registry.json`, guarded by `STATE_DIR/registry.lock`.

    Shared by the threads of a process and by all processes that use the same directory. The lock
    is the kernel's, so it dies with its holder; the file is replaced whole, so a reader needs none.
    """

    def __init__(self, directory: Path, *, max_loaded: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._max_loaded = max_loaded
        self._lock = FileLock(directory / "registry.lock")
        self._threads = threading.Lock()
        self._file = HeldFile(directory / "registry.json")
        self._state: State | None = None
        self._snapshots = threading.Lock()
        self._snapshot_file = HeldFile(directory / "registry.json")
        self._snapshot: State | None = None

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """The state, to be looked at and changed while nobody else does either.

        Left by an exception it changes nothing. Keep it short: no network, no sleep.
        """
        with self._threads, self._lock:
            if self._state is None or not self._file.is_current():
                self._state = self._decode(self._file.read())
            state, self._state = self._state, None
            yield state
            content = encode(state)
            if content != self._file.content:
                self._file.replace(content)
            self._state = state

    def read(self) -> State:
        """The state as it last was, to report it: not to act on it, and never to change it."""
        with self._snapshots:
            if self._snapshot is None or not self._snapshot_file.is_current():
                self._snapshot = self._decode(self._snapshot_file.read())
            return self._snapshot

    def close(self) -> None:
        """Let go of the files. Nothing else may be asked of this store afterwards."""
        self._lock.close()
        self._file.let_go()
        self._snapshot_file.let_go()

    def _decode(self, content: bytes) -> State:
        if not content:
            return State(self._max_loaded)
        try:
            return decode(content, self._max_loaded)
        except ValueError as exc:
            log.warning("registry_rebuilt", extra={"reason": str(exc)})
            return State(self._max_loaded)
