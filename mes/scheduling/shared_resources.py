"""What the workers of a service share: two files in STATE_DIR and a flag."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from mes.scheduling import runtime_status, serialization
from mes.scheduling.shared_file import SharedFile

# What a request in the queue takes up in the registry file, and a model in several of its tables.
_BYTES_PER_REQUEST = 400
_BYTES_PER_MODEL = 800
_BYTES_PER_PULLED_MODEL = 500


class StopFlag:
    """A flag that gunicorn's master sets and the workers it has forked see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    def __bool__(self) -> bool:
        return bool(self._memory[0])


@dataclass(frozen=True)
class SharedResources:
    """Opened before the workers are forked, which inherit it."""

    registry: SharedFile
    runtime_status: SharedFile
    stopping: StopFlag = field(default_factory=StopFlag)

    @classmethod
    def open(
        cls, directory: Path, *, requests: int, models: int, stopping: StopFlag | None = None
    ) -> SharedResources:
        """Open the files, or make them.

        Args:
            directory: STATE_DIR; it is made if need be.
            requests: How many requests may run and wait at a time.
            models: How many models are in the catalog.
            stopping: Set when the service ends.

        Raises OSError.
        """
        registry = SharedFile.open(
            directory / "registry.json",
            requests * _BYTES_PER_REQUEST + models * _BYTES_PER_MODEL,
            serialization.check,
        )
        status = SharedFile.open(
            directory / "runtime_status.json",
            models * _BYTES_PER_PULLED_MODEL,
            runtime_status.check,
        )
        return cls(registry, status, StopFlag() if stopping is None else stopping)

    @classmethod
    def inherit(
        cls, directory: Path, registry: int, runtime_status: int, stopping: StopFlag
    ) -> SharedResources:
        """Take over the open files of another master."""
        return cls(
            SharedFile(directory / "registry.json", registry),
            SharedFile(directory / "runtime_status.json", runtime_status),
            stopping,
        )

    def close(self) -> None:
        self.registry.close()
        self.runtime_status.close()
