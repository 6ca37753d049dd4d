"""API keys: their scopes, and the file that lists them (`MES_API_KEYS_FILE`)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from mes import strict_json
from mes.config.reloading_file import FileError, ReloadingFile
from mes.errors import Mistake

# Keys: who may enter, and how far.

INFERENCE, ADMIN, METRICS = "inference", "admin", "metrics"
SCOPES = (INFERENCE, ADMIN, METRICS)


@dataclass(frozen=True)
class ApiKey:
    """One key. What callers show is not kept, only its digest."""

    name: str
    scopes: frozenset[str]
    digest: str
    created: datetime | None = None
    expires: datetime | None = None
    disabled: bool = False

    @property
    def id(self) -> str:
        """Enough of the digest to tell two keys of one name apart."""
        return self.digest[:8]

    def allows(self, scope: str) -> bool:
        """May it do what needs this scope? `admin` may do everything."""
        return scope in self.scopes or ADMIN in self.scopes

    def is_valid_at(self, now: datetime) -> bool:
        return not self.disabled and (self.expires is None or now < self.expires)


# By digest. Looking one up may take longer for some digests than for others, but nobody can choose
# a key by its digest, so the time tells nothing about the keys.
Keyring = Mapping[str, ApiKey]


class ApiKeys:
    """The keys that are accepted now: the one of the settings, and those of a file."""

    def __init__(self, api_key: str | None, of_file: Callable[[], Keyring] = dict) -> None:
        own = [] if api_key is None else [ApiKey("default", frozenset(SCOPES), key_digest(api_key))]
        self._own: Keyring = {key.digest: key for key in own}
        self._of_file = of_file

    def find(self, shown: str) -> ApiKey | None:
        """The key in force that the caller shows; None where there is none."""
        digest = key_digest(shown)
        key = self._own.get(digest) or self._of_file().get(digest)
        return key if key is not None and key.is_valid_at(datetime.now(UTC)) else None


def key_digest(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal.

    Neither salted nor slow: that protects passwords, which people choose. Our keys are 256 random
    bits, which no one guesses however fast the guessing, and each request computes this once.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


# The keys file: names, scopes and digests of the keys that are accepted, as MES_API_KEYS_FILE.

KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TIME = "is not a time with its zone, such as 2027-01-31T00:00:00Z"
_OTHERS = 0o077


class ApiKeysError(FileError):
    """The keys file does not hold."""


def _field(kind: Any, told: str, **more: Any) -> Any:
    """A field with one message, which never shows the value: it might be a key."""
    wrong = dict.fromkeys(("invalid", "null", "invalid_utf8", "format"), told)
    return kind(error_messages={"required": "is missing; add it", **wrong}, **more)


def _text(pattern: str, told: str) -> Any:
    check = validate.Regexp(rf"(?:{pattern})\Z", error=told)
    return _field(fields.String, told, required=True, validate=check)


def _time(**more: Any) -> Any:
    return _field(fields.AwareDateTime, _TIME, format="iso", **more)


class _StrictBoolean(fields.Boolean):
    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class ApiKeySchema(Schema):
    """One entry of the file."""

    error_messages = {
        "type": "is not a JSON object; write {...}",
        "unknown": "is not known here; an entry has name, scopes, sha256, created, expires and "
        "disabled",
    }
    name = _text(KEY_NAME.pattern, "is not 1 to 64 of A-Z a-z 0-9 . _ -")
    scopes = _field(
        fields.List,
        "is not a list of scopes",
        required=True,
        cls_or_instance=_field(
            fields.String,
            "is not a scope",
            validate=validate.OneOf(SCOPES, error=f"is not one of {', '.join(SCOPES)}"),
        ),
        validate=validate.Length(1, error="is empty; name a scope, or disable the key"),
    )
    sha256 = _text("[0-9a-f]{64}", "is not a SHA-256 of 64 lower-case hexadecimal digits")
    created = _time(load_default=None)
    expires = _time(load_default=None)
    disabled = _field(_StrictBoolean, "is not true or false", load_default=False)

    @post_load
    def _key(self, data: dict[str, Any], **_: Any) -> ApiKey:
        scopes, digest = frozenset(data.pop("scopes")), data.pop("sha256")
        return ApiKey(scopes=scopes, digest=digest, **data)


class ApiKeysSchema(Schema):
    """The file: {"keys": [entry, ...]}."""

    error_messages = {
        "type": 'is not a JSON object; write {"keys": [...]}',
        "unknown": "is not known here; the file has keys alone",
    }
    keys = _field(
        fields.List,
        "is not a list of entries",
        required=True,
        cls_or_instance=fields.Nested(ApiKeySchema),
    )

    @validates_schema
    def _digests_are_apart(self, data: dict[str, Any], **_: Any) -> None:
        taken = Counter(key.digest for key in data["keys"])
        twice = [at for at, key in enumerate(data["keys"]) if taken[key.digest] > 1]
        if twice:
            told = {"sha256": ["is that of another entry too; keep one"]}
            raise ValidationError({"keys": dict.fromkeys(twice, told)})


def parse_api_keys(text: bytes, *, path: Path) -> tuple[ApiKey, ...]:
    """The keys in a file's text. Raises KeysError, which tells all mistakes at once."""
    try:
        return tuple(ApiKeysSchema().load(strict_json.parse_json(text))["keys"])
    except strict_json.NotJson as exc:
        raise ApiKeysError(path, [Mistake("", f"is not JSON: {exc}; mend it")]) from exc
    except ValidationError as exc:
        raise ApiKeysError(path, list(_mistakes(exc.messages_dict))) from exc


def _mistakes(messages: Any, pointer: str = "") -> Iterator[Mistake]:
    if isinstance(messages, dict):
        for step, inner in messages.items():
            yield from _mistakes(inner, pointer if step == "_schema" else f"{pointer}/{step}")
    else:
        yield from (Mistake(pointer, text) for text in messages)


class ApiKeysFile(ReloadingFile[Keyring]):
    """The keys as the file has them now; see RereadFile."""

    noun = "keys"
    setting = "MES_API_KEYS_FILE, or make one with: mes key new"
    error = ApiKeysError

    def parse(self, text: bytes) -> Keyring:
        return {key.digest: key for key in parse_api_keys(text, path=self.path)}


def is_accessible_by_others(path: Path) -> bool:
    """May the group or everybody read or change the file?"""
    return bool(path.stat().st_mode & _OTHERS)
