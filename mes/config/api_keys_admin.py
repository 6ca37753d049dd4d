"""Create, list and revoke API keys in the file of API keys."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mes.config import api_keys
from mes.config.api_keys import ApiKey, ApiKeysError, key_digest
from mes.config.timed_lock import LockTimeout, ProcessLock
from mes.errors import Mistake

# Secret scanners recognize keys by this prefix.
_PREFIX = "mes_"


class ApiKeyNotFound(LookupError):
    """No enabled key has the name or id, or several have it; the text lists the candidates."""


def create_key(
    path: Path, *, name: str, scopes: Iterable[str], expires: datetime | None = None
) -> str:
    """Add a new key to the file and return it. The file contains only its digest.

    Raises ApiKeysError.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    entry: dict[str, Any] = {"name": name, "scopes": list(scopes), "sha256": key_digest(key)}
    entry["created"] = _format_time(datetime.now(UTC))
    if expires is not None:
        entry["expires"] = _format_time(expires)
    with _edit_entries(path) as entries:
        entries.append(entry)
    return key


def list_keys(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in the order of the file. Raises ApiKeysError."""
    return api_keys.parse_api_keys(_read(path), path=path)


def revoke_key(path: Path, name_or_id: str) -> ApiKey:
    """Disable the key with this name or id, and return it.

    Its entry stays in the file, so that its name in old log lines can still be looked up.

    Raises ApiKeyNotFound, ApiKeysError.
    """
    with _edit_entries(path) as entries:
        key = _find_enabled(name_or_id, list_keys(path))
        next(entry for entry in entries if entry["sha256"] == key.digest)["disabled"] = True
    return key


def _find_enabled(name_or_id: str, keys: Iterable[ApiKey]) -> ApiKey:
    enabled = [key for key in keys if not key.disabled]
    matches = [key for key in enabled if name_or_id in (key.name, key.id)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(key.id for key in matches)
        raise ApiKeyNotFound(
            f"{len(matches)} keys have the name {name_or_id}; use one of their ids: {ids}"
        )
    names = ", ".join(f"{key.name} ({key.id})" for key in enabled) or "none"
    raise ApiKeyNotFound(f"no enabled key has the name or id {name_or_id}; enabled keys: {names}")


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _edit_entries(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the entries of the file for changes; afterwards replace the file, if it is valid."""
    # If the path is a symbolic link, its target is replaced and the link stays.
    path = path.resolve()
    try:
        with _locked(path.parent):
            text = _read(path) if path.exists() else b'{"keys": []}'
            api_keys.parse_api_keys(text, path=path)
            document = json.loads(text)
            yield document["keys"]
            changed = json.dumps(document, indent=2).encode() + b"\n"
            api_keys.parse_api_keys(changed, path=path)
            _replace(path, changed)
    except LockTimeout as exc:
        detail = f"is being edited by another command: {exc.strerror}"
        raise ApiKeysError(path, [Mistake("", detail)]) from exc
    except OSError as exc:
        detail = f"cannot be written ({exc.strerror}); run the command as the owner of the file"
        raise ApiKeysError(path, [Mistake("", detail)]) from exc


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder during the block; without a lock, concurrent edits would be lost.

    The lock is not on the file, because an edit replaces the file. Raises LockTimeout.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ProcessLock(descriptor).lock()
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        detail = f"cannot be read ({exc.strerror}); create it with: mes key new"
        raise ApiKeysError(path, [Mistake("", detail)]) from exc


def _replace(path: Path, text: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _copy_owner_and_mode(path, descriptor)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _copy_owner_and_mode(path: Path, descriptor: int) -> None:
    """Keep the file's owner, so that the service can still read a file that root has edited."""
    if path.exists():
        status = path.stat()
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o640)
