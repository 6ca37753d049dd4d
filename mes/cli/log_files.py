"""Log files of programs that run for long: appended to at each start, and rotated by size.

`mes.log` becomes `mes.log.1`, and that `mes.log.2`, and so on. The programs write to the open file
all the time, so it is copied and emptied. A line that is written in the moment between is lost.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

MAX_BYTES = 10_000_000
KEPT_FILES = 3
_CHECK_SECONDS = 5.0
_START = b'{"event":"log_opened",'


@contextmanager
def appended(path: Path) -> Iterator[IO[bytes]]:
    """Open a log to append to it, and rotate it during the block whenever it is too large."""
    path.parent.mkdir(exist_ok=True)
    _rotate_if_large(path)
    ended = threading.Event()
    with path.open("ab", buffering=0) as log:
        log.write(_start_line())
        threading.Thread(target=_rotate_repeatedly, args=(path, ended), daemon=True).start()
        try:
            yield log
        finally:
            ended.set()


def last_lines(path: Path, number: int) -> list[str]:
    """Return the last lines of the log, at most those since it was last opened."""
    text = path.read_bytes()
    at = text.rfind(_START)
    since = text[at:].partition(b"\n")[2] if at >= 0 else text
    return since.decode(errors="replace").splitlines()[-number:]


def _start_line() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _START + f'"time":{json.dumps(now)},"level":"INFO"}}\n'.encode()


def _rotate_repeatedly(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_CHECK_SECONDS):
        _rotate_if_large(path)


def _rotate_if_large(path: Path) -> None:
    # A log that cannot be rotated, as on a full disk, is still written.
    with suppress(OSError):
        if path.stat().st_size >= MAX_BYTES:
            _rotate(path)


def _rotate(path: Path) -> None:
    for number in range(KEPT_FILES - 1, 0, -1):
        with suppress(FileNotFoundError):
            _numbered(path, number).replace(_numbered(path, number + 1))
    with path.open("r+b") as log, _numbered(path, 1).open("wb") as copy:
        while copy.tell() < os.fstat(log.fileno()).st_size:
            shutil.copyfileobj(log, copy)
        log.truncate(0)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
