"""The resources that the workers of a service share: two files in STATE_DIR and a flag."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mes.config.private_files import make_private_folder, open_private
from mes.scheduling import runtime_status, serialization
from mes.scheduling.serialization import EMPTY, NOTHING
from mes.scheduling.shared_file import Handle, SharedFile

log = logging.getLogger(__name__)

# The space of a request in the registry file, of a model in several of its tables, and of a model
# in the runtime status.
_BYTES_PER_REQUEST = 400
_BYTES_PER_MODEL = 800
_BYTES_PER_PULLED_MODEL = 500


class SharedFlag:
    """A flag that gunicorn's master and the workers it has forked set and see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    def __bool__(self) -> bool:
        return bool(self._memory[0])


@dataclass(frozen=True)
class SharedResources:
    """The shared files and the flag. The master opens them, and the workers inherit them."""

    registry: SharedFile
    runtime_status: SharedFile
    stopping: SharedFlag = field(default_factory=SharedFlag)

    @classmethod
    def open(
        cls, directory: Path, *, requests: int, models: int, stopping: SharedFlag | None = None
    ) -> SharedResources:
        """Open the files, or create them.

        Args:
            directory: STATE_DIR; it is created if it is absent.
            requests: How many requests may run and wait at a time.
            models: How many models are in the catalog.
            stopping: Set when the service ends.

        Raises OSError.
        """
        registry = open_shared_file(
            directory / "registry.json",
            requests * _BYTES_PER_REQUEST + models * _BYTES_PER_MODEL,
            serialization.check,
            serialization.with_unchecked_residents,
        )
        status = open_shared_file(
            directory / "runtime_status.json",
            models * _BYTES_PER_PULLED_MODEL,
            runtime_status.check,
        )
        return cls(registry, status, SharedFlag() if stopping is None else stopping)

    @classmethod
    def inherit(
        cls, directory: Path, registry: int, runtime_status: int, stopping: SharedFlag
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


def open_shared_file(
    path: Path,
    content_bytes: int,
    check: Callable[[bytes], object] = bytes,
    adapt: Callable[[bytes], bytes] = bytes,
) -> SharedFile:
    """Open a shared file; create it if it is absent or unusable.

    Args:
        path: Its name. Its folder is created if it is absent.
        content_bytes: The room that documents are expected to need.
        check: Raises ValueError for a document that this program cannot begin with. The file is
            then left to the processes that still use it, and a new one takes its name.
        adapt: Returns the document to begin with.

    Raises OSError.
    """
    make_private_folder(path.parent)
    while True:
        file = SharedFile(path, open_private(path))
        try:
            with closing(Handle(file)) as handle, handle:
                # If it was replaced while this process waited for the lock, the new one is opened.
                if file.is_named and _prepare(file, handle, content_bytes, check, adapt):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _prepare(
    file: SharedFile,
    handle: Handle,
    content_bytes: int,
    check: Callable[[bytes], object],
    adapt: Callable[[bytes], bytes],
) -> bool:
    """Prepare the file for use. If it is unusable, delete its name and return False."""
    if not os.fstat(file.fd).st_size:
        handle.create(content_bytes)
        return True
    try:
        if handle.read() is NOTHING:
            raise ValueError("it contains no whole document")
        if handle.entry.content != EMPTY:
            check(handle.entry.content)
    except ValueError as exc:
        log.warning("registry_unusable", extra={"path": str(file.path), "reason": str(exc)})
        file.path.unlink(missing_ok=True)
        return False
    handle.ensure_room(content_bytes)
    content = handle.entry.content
    # The workers of an earlier start may still have a newer document than a damaged file.
    if not handle.looks_damaged() and (adapted := adapt(content)) != content:
        handle.write(adapted)
    return True
