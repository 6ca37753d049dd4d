"""Files and folders that this user alone may change, as those in STATE_DIR.

The default of STATE_DIR is a known name in a folder that every user can write to. Another user may
have created it before, with links to files of the user that MES runs as.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from pathlib import Path

_WRITABLE_BY_OTHERS = 0o022
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_OTHER_FOLDER = "or set STATE_DIR to another folder"


class NotPrivate(PermissionError):
    """Another user can change the file or folder; `strerror` has the reason and the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EPERM, reason)


def make_private_folder(folder: Path) -> None:
    """Create a folder for this user alone, or check the existing one.

    Raises:
        NotPrivate: the folder is a link, or another user owns it or can write to it.
        OSError: it cannot be created.
    """
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
    except FileExistsError:
        require_private_folder(folder)  # a link that leads nowhere
        raise
    require_private_folder(folder)


def require_private_folder(folder: Path) -> None:
    """Raise NotPrivate if the folder is a link, or if another user owns it or can write to it.

    Raises OSError if it does not exist.
    """
    status = os.lstat(folder)
    _require_own(folder, status)
    if status.st_mode & _WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise NotPrivate(
            f"other users can write to {folder} (mode {mode:o}); chmod 700 {folder}, "
            f"{_OTHER_FOLDER}"
        )


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a file in a private folder, by default for reading and writing; return its descriptor.

    A file that is created is for its owner alone. Raises OSError, and NotPrivate as above.
    """
    require_private_folder(path.parent)
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _PRIVATE_FILE)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            _require_own(path, os.lstat(path))
        raise
    try:
        _require_own(path, os.fstat(fd))
    except NotPrivate:
        os.close(fd)
        raise
    return fd


def read_private(path: Path) -> bytes:
    """Return the content of a private file. Raises OSError."""
    with open(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def replace_private(path: Path, content: bytes, *, draft: Path) -> None:
    """Replace a private file, so that no reader ever sees a part of it.

    Args:
        draft: The file that is written first; no two processes may use the same one at a time.

    Raises OSError; the old file then stays.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(open_private(draft, flags), "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except NotPrivate:
        raise
    except OSError:
        draft.unlink(missing_ok=True)  # it may occupy the last room of a full disk
        raise


def _require_own(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NotPrivate(f"{path} is a symbolic link; remove it, {_OTHER_FOLDER}")
    if status.st_uid != os.geteuid():
        owner, user = _user(status.st_uid), _user(os.geteuid())
        by = owner if owner == "root" else f"{owner} or root"
        raise NotPrivate(
            f"{path} belongs to the user {owner}, and MES runs as {user}; remove it as {by}, "
            f"{_OTHER_FOLDER}"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
