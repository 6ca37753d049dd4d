"""The copy: `STATE_DIR/registry.json`, for the service that starts after this one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mes.scheduling.document import decode_foreign
from mes.scheduling.files import replace_whole
from mes.scheduling.state import State
from mes.scheduling.worker import is_alive

log = logging.getLogger(__name__)

_MOST_BYTES = 16 << 20


class Copy:
    """Written by the keeper, read by nobody while the service runs: no damage to it does harm."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "registry.json"
        self._saved_version = 0
        self._stamp: tuple[int, ...] | None = None

    def save(self, version: int, content: bytes) -> None:
        """Make the file agree with the state, whatever has become of it. Raises OSError."""
        damaged = self._stamp is not None and self._stamp != self._found()
        if not damaged and version == self._saved_version:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(self._path, content)
        self._saved_version, self._stamp = version, self._found()
        if damaged:
            log.warning("state_dir_repaired", extra={"path": str(self._path)})

    def recall(self, max_loaded: int) -> State:
        """What is still true of the copy that another service has left."""
        try:
            with self._path.open("rb") as file:
                earlier = decode_foreign(file.read(_MOST_BYTES), max_loaded)
        except FileNotFoundError:
            return State(max_loaded)  # the first start
        except (OSError, ValueError) as exc:
            log.warning("copy_unusable", extra={"path": str(self._path), "reason": str(exc)})
            return State(max_loaded)
        return _still_true(earlier)

    def _found(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns)


def _still_true(earlier: State) -> State:
    """What is in memory, how long things take, and the permits of workers that outlive a master."""
    state = State(earlier.max_loaded)
    for model in filter(earlier.ready, list(earlier.registry)):
        state.registry[model] = earlier.registry.peek(model)
    state.tallies, state.preloaded = earlier.tallies, earlier.preloaded
    state.troubles = earlier.troubles
    state.permits = {i: permit for i, permit in earlier.permits.items() if is_alive(permit.worker)}
    return state
