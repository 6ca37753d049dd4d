"""API keys: their scopes, the file that lists them, and the throttle of wrong keys."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from cachetools import TTLCache
from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from mes import strict_json
from mes.config.reloading_file import FileError, ReloadingFile
from mes.domain.json_pointer import json_pointer
from mes.errors import Mistake

INFERENCE, ADMIN, METRICS = "inference", "admin", "metrics"
SCOPES = (INFERENCE, ADMIN, METRICS)
KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

_TIME = "is not a time with a time zone, such as 2027-01-31T00:00:00Z"
_OTHERS_PERMISSIONS = 0o077
_MAX_WRONG_KEYS = 10
_WINDOW_SECONDS = 60.0
# An attacker with more addresses than this cannot be stopped here, but must not fill the memory.
_MAX_ADDRESSES = 10_000


@dataclass(frozen=True)
class ApiKey:
    """One API key. Only its SHA-256 is stored, not the key itself."""

    name: str
    scopes: frozenset[str]
    digest: str
    created: datetime | None = None
    expires: datetime | None = None
    disabled: bool = False

    @property
    def id(self) -> str:
        """The start of the digest, which distinguishes keys with the same name."""
        return self.digest[:8]

    def allows(self, scope: str) -> bool:
        """Return whether the key grants this scope; `admin` grants every scope."""
        return scope in self.scopes or ADMIN in self.scopes

    def is_valid_at(self, now: datetime) -> bool:
        """Return whether the key is neither disabled nor expired."""
        return not self.disabled and (self.expires is None or now < self.expires)


# Keys by digest. The time of a lookup may depend on the digest, but no client can choose a key by
# its digest, so the time reveals nothing about the keys.
Keyring = Mapping[str, ApiKey]


class ApiKeys:
    """The accepted keys: the one of MES_API_KEY, with all scopes, and those of a file.

    `file_keys` returns the current keys of the file.
    """

    def __init__(self, api_key: str | None, file_keys: Callable[[], Keyring] = dict) -> None:
        self._settings_keys: dict[str, ApiKey] = {}
        if api_key is not None:
            digest = key_digest(api_key)
            self._settings_keys[digest] = ApiKey("default", frozenset(SCOPES), digest)
        self._file_keys = file_keys

    def find(self, key_text: str) -> ApiKey | None:
        """Return the valid key with this text; None if there is none."""
        digest = key_digest(key_text)
        key = self._settings_keys.get(digest) or self._file_keys().get(digest)
        return key if key is not None and key.is_valid_at(datetime.now(UTC)) else None


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal.

    The hash is fast and has no salt. Salts and slow hashes protect passwords, which people choose;
    keys are 256 random bits, which cannot be guessed, and each request computes the hash once.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeysError(FileError):
    """The file of API keys is invalid or cannot be read."""


def _field(kind: Any, message: str, **options: Any) -> Any:
    """Return a field with one error message, without the value, which might be a key."""
    messages = dict.fromkeys(("invalid", "null", "invalid_utf8", "format"), message)
    return kind(error_messages={"required": "is missing; add it", **messages}, **options)


def _text(pattern: str, message: str) -> Any:
    check = validate.Regexp(rf"(?:{pattern})\Z", error=message)
    return _field(fields.String, message, required=True, validate=check)


def _time(**options: Any) -> Any:
    return _field(fields.AwareDateTime, _TIME, format="iso", **options)


class _StrictBoolean(fields.Boolean):
    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class ApiKeySchema(Schema):
    """One entry of the file."""

    error_messages = {
        "type": "is not a JSON object; write {...}",
        "unknown": "is not a known field; an entry has name, scopes, sha256, created, expires and "
        "disabled",
    }
    name = _text(KEY_NAME.pattern, "is not a name of 1 to 64 characters from A-Z a-z 0-9 . _ -")
    scopes = _field(
        fields.List,
        "is not a list of scopes",
        required=True,
        cls_or_instance=_field(
            fields.String,
            "is not a scope",
            validate=validate.OneOf(SCOPES, error=f"is not one of {', '.join(SCOPES)}"),
        ),
        validate=validate.Length(1, error="is empty; add a scope, or disable the key"),
    )
    sha256 = _text("[0-9a-f]{64}", "is not a SHA-256 in 64 lower-case hexadecimal digits")
    created = _time(load_default=None)
    expires = _time(load_default=None)
    disabled = _field(_StrictBoolean, "is not true or false", load_default=False)

    @post_load
    def _make_key(self, data: dict[str, Any], **_: Any) -> ApiKey:
        scopes, digest = frozenset(data.pop("scopes")), data.pop("sha256")
        return ApiKey(scopes=scopes, digest=digest, **data)


class ApiKeysSchema(Schema):
    """The file: {"keys": [entry, ...]}."""

    error_messages = {
        "type": 'is not a JSON object; write {"keys": [...]}',
        "unknown": "is not a known field; the file has only keys",
    }
    keys = _field(
        fields.List,
        "is not a list of entries",
        required=True,
        cls_or_instance=fields.Nested(ApiKeySchema),
    )

    @validates_schema
    def _check_digests_are_unique(self, data: dict[str, Any], **_: Any) -> None:
        counts = Counter(key.digest for key in data["keys"])
        duplicates = [index for index, key in enumerate(data["keys"]) if counts[key.digest] > 1]
        if duplicates:
            messages = {"sha256": ["is also the sha256 of another entry; keep one of them"]}
            raise ValidationError({"keys": dict.fromkeys(duplicates, messages)})


def parse_api_keys(text: bytes, *, path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in a file's text.

    Raises ApiKeysError, which lists all mistakes.
    """
    try:
        return tuple(ApiKeysSchema().load(strict_json.parse_json(text))["keys"])
    except strict_json.NotJson as exc:
        raise ApiKeysError(path, [Mistake("", f"is not JSON: {exc}; correct it")]) from exc
    except ValidationError as exc:
        raise ApiKeysError(path, list(_mistakes(exc.messages_dict))) from exc


def _mistakes(messages: Any, pointer: str = "") -> Iterator[Mistake]:
    if isinstance(messages, dict):
        for name, inner in messages.items():
            yield from _mistakes(
                inner, pointer if name == "_schema" else pointer + json_pointer([name])
            )
    else:
        yield from (Mistake(pointer, message) for message in messages)


class ApiKeysFile(ReloadingFile[Keyring]):
    """The file of API keys (MES_API_KEYS_FILE), read again when it changes."""

    noun = "keys"
    setting = "MES_API_KEYS_FILE, or create the file with: mes key new"
    error = ApiKeysError

    def parse(self, text: bytes) -> Keyring:
        return {key.digest: key for key in parse_api_keys(text, path=self.path)}


def is_accessible_by_others(path: Path) -> bool:
    """Return whether users other than the owner may read or change the file."""
    return bool(path.stat().st_mode & _OTHERS_PERMISSIONS)


@dataclass(slots=True)
class _Window:
    ends_at: float
    wrong_keys: int = 0


class KeyThrottle:
    """Limits wrong keys to ten a minute for each address, in each worker process. Thread-safe."""

    def __init__(self) -> None:
        self._windows: TTLCache[str, _Window] = TTLCache(_MAX_ADDRESSES, _WINDOW_SECONDS)
        self._lock = threading.Lock()

    def count(self, address: str) -> float | None:
        """Count one wrong key from the address.

        Returns the seconds until the next one is accepted if the limit is exceeded, else None.
        """
        now, network = time.monotonic(), _network(address)
        with self._lock:
            window = self._windows.get(network)
            if window is None:
                # Changed in place from here on: setting it again would start a new minute.
                window = self._windows[network] = _Window(now + _WINDOW_SECONDS)
            window.wrong_keys += 1
        return window.ends_at - now if window.wrong_keys > _MAX_WRONG_KEYS else None


def _network(address: str) -> str:
    """Return the address; for IPv6 its /64 network, all of which one client usually has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
