"""A file that is read anew when it changes; a broken edit leaves the last good one in force."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from mes.errors import Mistake

log = logging.getLogger(__name__)

T = TypeVar("T")


class FileError(ValueError):
    """The file does not hold; the text has one line a mistake: where, problem, remedy."""

    def __init__(self, path: Path, mistakes: list[Mistake]) -> None:
        lines = [f"{path}: {each.pointer or '/'}: {each.detail}" for each in mistakes]
        super().__init__("\n".join(lines))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class _LoadedFile(Generic[T]):
    """What the last look at the file gave; replaced whole, so that readers need no lock."""

    stamp: tuple[int, ...]
    content: T | None
    problem: str | None = None


class ReloadingFile(Generic[T]):
    """What the file says now.

    An edit shows at most `look_every_seconds` later. A copy of the last good text is kept as
    `last_good`, so that all processes fall back on the same. Thread-safe.
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
        self._next_wakeup = 0.0
        self._reading: _LoadedFile[T] = _LoadedFile(stamp=(-1,), content=None)
        self._lock = threading.Lock()

    def parse(self, text: bytes) -> T:
        """What a text of the file means. Raises the file's own error."""
        raise NotImplementedError

    @property
    def problem(self) -> str | None:
        """What is wrong with the file since its last edit, if anything."""
        self.current()  # whoever asks may be the first to look since that edit
        return self._reading.problem

    def current(self) -> T:
        """The content. Raises the file's own error only while there never was a good one."""
        reading, now = self._reading, time.monotonic()
        if reading.content is None or now >= self._next_wakeup:
            self._next_wakeup = now + self._check_interval_seconds
            with self._lock:
                reading = self._reload()
        assert reading.content is not None
        return reading.content

    def _fingerprint(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError:
            return (0,)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _reload(self) -> _LoadedFile[T]:
        # Before reading: an edit in between is then seen at the next look.
        stamp = self._fingerprint()
        if stamp != self._reading.stamp:
            self._reading = self._read(stamp)
        return self._reading

    def _read(self, stamp: tuple[int, ...]) -> _LoadedFile[T]:
        told = {"path": str(self.path)}
        try:
            text = self._text()
            content = self.parse(text)
        except FileError as exc:
            # Ours may be older than the kept one: this process need not have seen every edit.
            recalled = self._restore_last_good()
            good = self._reading.content if recalled is None else recalled
            if good is None:
                raise
            log.error(f"{self.noun}_broken", extra={**told, "problem": str(exc)})
            return _LoadedFile(stamp, good, str(exc))
        self._save_last_good(text)
        log.info(f"{self.noun}_read", extra=told)
        return _LoadedFile(stamp, content)

    def _text(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as exc:
            told = Mistake("", f"cannot be read ({exc.strerror}); see {self.setting}")
            raise self.error(self.path, [told]) from exc

    def _restore_last_good(self) -> T | None:
        try:
            return (
                None
                if self._last_good_path is None
                else self.parse(self._last_good_path.read_bytes())
            )
        except (OSError, FileError):
            return None

    def _save_last_good(self, text: bytes) -> None:
        if self._last_good_path is None:
            return
        draft = self._last_good_path.with_suffix(f".{os.getpid()}")
        try:
            self._last_good_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(text)
            os.replace(draft, self._last_good_path)
        except OSError as exc:
            # It only matters once an edit is broken.
            log.warning(f"{self.noun}_not_kept", extra={"reason": str(exc)})
