"""A configuration file that is read again when it changes; an invalid edit changes nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from mes.config.private_files import make_private_folder, read_private, replace_private
from mes.errors import Mistake

log = logging.getLogger(__name__)

T = TypeVar("T")


class FileError(ValueError):
    """The file is invalid or cannot be read; each line of the text names one mistake."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        lines = [f"{path}: {m.pointer or '/'}: {m.detail}" for m in mistakes]
        super().__init__("\n".join(lines))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class _LoadedFile(Generic[T]):
    """The result of the last check; replaced as a whole, so that readers need no lock."""

    fingerprint: tuple[int, ...]
    content: T | None
    text: bytes = b""
    problem: str | None = None


class ReloadingFile(Generic[T]):
    """The current content of a file. Thread-safe.

    The file is checked for changes at most every `check_interval_seconds`. While the file is
    invalid, its last valid content is used. The last valid text is also stored in
    `last_good_path`, so that all processes use the same one.

    Subclasses implement `parse` and set `noun`, which starts the names of log events, `setting`,
    which error details refer to, and `error`, the class of the errors.
    """

    noun: ClassVar[str]
    setting: ClassVar[str]
    error: ClassVar[type[FileError]] = FileError

    def __init__(
        self,
        path: str | Path,
        check_interval_seconds: float = 0.0,
        last_good_path: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._last_good_path = last_good_path
        self._check_interval_seconds = check_interval_seconds
        self._next_check = 0.0
        self._loaded: _LoadedFile[T] = _LoadedFile(fingerprint=(-1,), content=None)
        # Of the copy in `last_good_path` when it was last known to be valid.
        self._copy_fingerprint: tuple[int, ...] = (-1,)
        self._lock = threading.Lock()

    def parse(self, text: bytes) -> T:
        """Return the content that the text describes. Raises `error`."""
        raise NotImplementedError

    @property
    def problem(self) -> str | None:
        """The mistakes in the file as it is now; None if it is valid."""
        self.current()  # check for an edit that no call has noticed yet
        return self._loaded.problem

    def current(self) -> T:
        """Return the content.

        Raises `error` only if there has been no valid content yet.
        """
        loaded, now = self._loaded, time.monotonic()
        if loaded.content is None or now >= self._next_check:
            self._next_check = now + self._check_interval_seconds
            with self._lock:
                loaded = self._reload()
        assert loaded.content is not None
        return loaded.content

    def keep_last_good(self) -> None:
        """Store the last valid text again if its copy was deleted or damaged.

        Only one process needs to call this, several times a second. Raises OSError if the copy
        cannot be written.
        """
        if self._last_good_path is None:
            return
        with self._lock:
            last_good = self._reload().text
            if _fingerprint(self._last_good_path) == self._copy_fingerprint:
                return
            if self._restore_last_good(_LoadedFile((), None)).content is None:
                self._write_last_good(self._last_good_path, last_good)
                log.warning(f"{self.noun}_kept_again", extra={"path": str(self._last_good_path)})
            self._copy_fingerprint = _fingerprint(self._last_good_path)

    def _reload(self) -> _LoadedFile[T]:
        # Taken before the read, so that an edit in between is noticed at the next check.
        fingerprint = _fingerprint(self.path)
        if fingerprint != self._loaded.fingerprint:
            self._loaded = self._load(fingerprint)
        return self._loaded

    def _load(self, fingerprint: tuple[int, ...]) -> _LoadedFile[T]:
        log_fields = {"path": str(self.path)}
        try:
            text = self._read_text()
            content = self.parse(text)
        except FileError as exc:
            # The stored text comes first: another process may have read a later edit than this one.
            last_good = self._restore_last_good(self._loaded)
            if last_good.content is None:
                raise
            log.error(f"{self.noun}_broken", extra={**log_fields, "problem": str(exc)})
            return replace(last_good, fingerprint=fingerprint, problem=str(exc))
        self._save_last_good(text)
        log.info(f"{self.noun}_read", extra=log_fields)
        return _LoadedFile(fingerprint, content, text)

    def _read_text(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as exc:
            mistake = Mistake("", f"cannot be read ({exc.strerror}); see {self.setting}")
            raise self.error(self.path, [mistake]) from exc

    def _restore_last_good(self, otherwise: _LoadedFile[T]) -> _LoadedFile[T]:
        """Return the text and content of the copy, or `otherwise` if there is no valid copy."""
        if self._last_good_path is None:
            return otherwise
        try:
            text = read_private(self._last_good_path)
            return _LoadedFile((), self.parse(text), text)
        except (OSError, FileError):
            return otherwise

    def _save_last_good(self, text: bytes) -> None:
        if self._last_good_path is None:
            return
        try:
            self._write_last_good(self._last_good_path, text)
        except OSError as exc:
            # The stored text is only needed when a later edit is invalid.
            log.warning(f"{self.noun}_not_kept", extra={"reason": str(exc)})

    def _write_last_good(self, path: Path, text: bytes) -> None:
        make_private_folder(path.parent)
        replace_private(path, text, draft=path.with_suffix(f".{os.getpid()}"))


def _fingerprint(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return (0,)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
