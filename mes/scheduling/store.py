"""The store: the shared state in one file, changed under one lock."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mes.config.private_files import make_private_folder, replace_private
from mes.config.timed_lock import LOCK_SECONDS, LockTimeout, TimedLock
from mes.errors import StateDirFull, StateLocked, StateUnavailable, format_number
from mes.scheduling.file_lock import check_writable
from mes.scheduling.serialization import NOTHING, Entry, decode, encode, image
from mes.scheduling.shared_file import Damaged, Handle, SharedFile
from mes.scheduling.state import State

log = logging.getLogger(__name__)

# The time for every worker to offer its last state after damage; each checks four times a second.
_AGREE_SECONDS = 0.5


class Store:
    """The state that the workers of a service share, for all threads and processes.

    A worker that finds the file damaged waits until the others have put their last states into it,
    and continues with the newest; see docs/architecture.md.

    Args:
        file: The registry file.
        max_loaded: How many models may be in memory.
        lock_timeout_seconds: The longest wait for other threads and processes.
    """

    def __init__(
        self, file: SharedFile, *, max_loaded: int, lock_timeout_seconds: float = LOCK_SECONDS
    ) -> None:
        self._file = file
        self._max_loaded = max_loaded
        self._handle = Handle(file)
        self._lock = TimedLock(
            self._handle, file.path, timeout_seconds=lock_timeout_seconds, noun="state"
        )
        self._state: State | None = None
        self._state_entry = NOTHING
        # A lock of its own, because `read` must not wait for a transaction of this process.
        self._readers = threading.Lock()
        self._view = Handle(file)
        self._viewed = State(max_loaded)
        self._viewed_entry = NOTHING
        self._snapshot = Snapshot(file)

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """Yield the state, to be read and changed while no other thread or process does either.

        A block that an exception leaves changes nothing. Keep it short: no network, no sleep.

        Raises:
            StateLocked: another process holds the lock for too long.
            StateDirFull: the state needs more room than the disk has.
        """
        try:
            self._lock.acquire()
        except LockTimeout as exc:
            raise self._unavailable(exc) from exc
        try:
            try:
                state = self._current()
            except OSError as exc:
                raise self._unavailable(exc) from exc
            # If an exception leaves the block, the state in memory may be half changed.
            self._state = None
            yield state
            content = encode(state)
            if content != self._state_entry.content:
                try:
                    self._state_entry = self._handle.write(content)
                except OSError as exc:
                    raise self._unavailable(exc) from exc
            self._state = state
        finally:
            self._lock.release()

    def read(self) -> State:
        """Return the last state, to report it. Do not change it, and do not base changes on it."""
        with self._readers:
            entry = self._view.read()
            if self._handle.entry.sequence > entry.sequence:
                entry = self._handle.entry  # if the file is damaged, it may be newer
            if entry.sequence != self._viewed_entry.sequence:
                self._viewed, self._viewed_entry = decode(entry.content, self._max_loaded), entry
            return self._viewed

    def check(self) -> None:
        """Repair the file if it is damaged. Every worker calls this several times a second.

        It also notices when the lock cannot be had, and when it can be had again.

        Raises OSError if the disk has no room for the repair.
        """
        self.read()
        with self._readers:
            damaged = self._view.looks_damaged()
        with suppress(LockTimeout), self._lock:
            if damaged:
                self._verify_or_repair()

    @property
    def lock_problem(self) -> str:
        """Why the state cannot be changed now, or an empty string."""
        problem = self._lock.problem
        return self._describe_lock(problem) if problem else ""

    def save(self) -> None:
        """Save a snapshot for the next start if the file's name was deleted.

        Only one worker at a time may call this. Raises OSError if STATE_DIR cannot be written.
        """
        self._snapshot.save()

    def close(self) -> None:
        """Close the file. The store is of no use afterwards."""
        self._handle.close()
        self._view.close()
        self._snapshot.close()

    def _unavailable(self, error: OSError) -> StateUnavailable:
        if isinstance(error, LockTimeout):
            return StateLocked(f"{self._describe_lock(str(error.strerror))}; try again later")
        return StateDirFull(
            f"STATE_DIR {self._file.path.parent} cannot store this request ({error.strerror}); "
            "make room there, or set STATE_DIR to a larger file system"
        )

    def _describe_lock(self, problem: str) -> str:
        limit = format_number(self._lock.timeout_seconds)
        return f"the shared state is locked for more than {limit} s (LOCK_TIMEOUT): {problem}"

    def _current(self) -> State:
        try:
            entry = self._handle.read_locked()
        except Damaged:
            entry = self._repair()
        if self._state is None or entry.sequence != self._state_entry.sequence:
            self._state, self._state_entry = decode(entry.content, self._max_loaded), entry
        return self._state

    def _verify_or_repair(self) -> None:
        try:
            self._handle.verify()
        except Damaged:
            self._repair()

    def _repair(self) -> Entry:
        """Agree with the other workers on the newest state and return it.

        The lock is released meanwhile. Raises OSError if the disk has no room.
        """
        self._handle.offer(self._known)
        self._handle.unlock()
        time.sleep(_AGREE_SECONDS)
        self._handle.lock()
        with suppress(Damaged):
            self._handle.verify()
            return self._handle.entry
        log.warning("state_dir_repaired", extra={"path": str(self._file.path)})
        return self._handle.repair(self._known)

    @property
    def _known(self) -> Entry:
        """The newest state that this worker has seen."""
        return max(self._handle.entry, self._view.entry)


class Snapshot:
    """A copy of the registry file for the next start, saved if the file's name was deleted."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._handle = Handle(file)
        self._saved = NOTHING
        self._fingerprint: tuple[int, ...] | None = None

    def save(self) -> None:
        """Save a copy under the name of the file, unless the name leads to the file itself.

        Raises OSError if STATE_DIR cannot be written, whether or not a copy was needed.
        """
        path = self._file.path
        if not self._file.is_named:
            entry = self._handle.read()
            if entry != self._saved or self._fingerprint != _fingerprint(path):
                if self._saved is NOTHING:
                    log.warning("state_dir_repaired", extra={"path": str(path)})
                make_private_folder(path.parent)
                # Only one process at a time saves a snapshot.
                replace_private(path, image(entry.content), draft=path.with_suffix(".json.new"))
                self._saved, self._fingerprint = entry, _fingerprint(path)
        check_writable(path.parent)

    def close(self) -> None:
        self._handle.close()


def _fingerprint(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)
