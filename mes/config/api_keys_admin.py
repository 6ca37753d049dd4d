"""The keysmith: makes keys and revokes them, in the keys file."""

from __future__ import annotations

import fcntl
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
from mes.errors import Mistake

# Programs that look for secrets in the wrong places can tell that this is one.
_PREFIX = "mes_"


class NoSuchKey(LookupError):
    """What was named is no key, or more than one; the text says which there are."""


def create_key(
    path: Path, *, name: str, scopes: Iterable[str], expires: datetime | None = None
) -> str:
    """A new key, whose digest is added to the file; nobody can tell the key ever after.

    Raises KeysError.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    entry: dict[str, Any] = {"name": name, "scopes": list(scopes), "sha256": key_digest(key)}
    entry["created"] = _written(datetime.now(UTC))
    if expires is not None:
        entry["expires"] = _written(expires)
    with _edited(path) as entries:
        entries.append(entry)
    return key


def list_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of the file, in its order. Raises KeysError."""
    return api_keys.parse_api_keys(_text(path), path=path)


def revoke_key(path: Path, which: str) -> ApiKey:
    """Disable the key of this name or id. Raises NoSuchKey, KeysError.

    Its entry stays, so that the name in an old log line can still be explained.
    """
    with _edited(path) as entries:
        key = _the_one(which, list_keys(path))
        next(each for each in entries if each["sha256"] == key.digest)["disabled"] = True
    return key


def _the_one(which: str, keys: Iterable[ApiKey]) -> ApiKey:
    enabled = [key for key in keys if not key.disabled]
    found = [key for key in enabled if which in (key.name, key.id)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(key.id for key in found)
        raise NoSuchKey(f"{len(found)} keys have the name {which}; name one by its id: {ids}")
    names = ", ".join(f"{key.name} ({key.id})" for key in enabled) or "none"
    raise NoSuchKey(f"no enabled key has the name or id {which}; there are: {names}")


def _written(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _edited(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The file's entries, to be changed; afterwards the file is replaced whole, if it holds."""
    # Where the name is a link, what it points to is replaced and not the link.
    path = path.resolve()
    try:
        with _locked(path.parent):
            text = _text(path) if path.exists() else b'{"keys": []}'
            api_keys.parse_api_keys(text, path=path)
            document = json.loads(text)
            yield document["keys"]
            changed = json.dumps(document, indent=2).encode() + b"\n"
            api_keys.parse_api_keys(changed, path=path)
            _replace(path, changed)
    except OSError as exc:
        told = f"cannot be written ({exc.strerror}); run this as the file's owner"
        raise ApiKeysError(path, [Mistake("", told)]) from exc


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two who edit at a time would lose one edit. The folder is locked: the file is replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        told = f"cannot be read ({exc.strerror}); make it with: mes key new"
        raise ApiKeysError(path, [Mistake("", told)]) from exc


def _replace(path: Path, text: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _as_before(path, descriptor)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _as_before(path: Path, descriptor: int) -> None:
    """The owner stays, so that a service of its own user can still read what root has edited."""
    if path.exists():
        before = path.stat()
        os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, before.st_mode & 0o640)
