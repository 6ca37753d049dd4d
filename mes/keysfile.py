"""The keys file: names, scopes and digests of the keys that are accepted, as MES_API_KEYS_FILE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from mes import strictjson
from mes.errors import Mistake
from mes.keys import SCOPES, Key, Keyring
from mes.reread import FileError, RereadFile

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TIME = "is not a time with its zone, such as 2027-01-31T00:00:00Z"
_OTHERS = 0o077


class KeysError(FileError):
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


class _Boolean(fields.Boolean):
    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class KeySchema(Schema):
    """One entry of the file."""

    error_messages = {
        "type": "is not a JSON object; write {...}",
        "unknown": "is not known here; an entry has name, scopes, sha256, created, expires and "
        "disabled",
    }
    name = _text(NAME.pattern, "is not 1 to 64 of A-Z a-z 0-9 . _ -")
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
    disabled = _field(_Boolean, "is not true or false", load_default=False)

    @post_load
    def _key(self, data: dict[str, Any], **_: Any) -> Key:
        scopes, digest = frozenset(data.pop("scopes")), data.pop("sha256")
        return Key(scopes=scopes, digest=digest, **data)


class KeysSchema(Schema):
    """The file: {"keys": [entry, ...]}."""

    error_messages = {
        "type": 'is not a JSON object; write {"keys": [...]}',
        "unknown": "is not known here; the file has keys alone",
    }
    keys = _field(
        fields.List,
        "is not a list of entries",
        required=True,
        cls_or_instance=fields.Nested(KeySchema),
    )

    @validates_schema
    def _digests_are_apart(self, data: dict[str, Any], **_: Any) -> None:
        taken = Counter(key.digest for key in data["keys"])
        twice = [at for at, key in enumerate(data["keys"]) if taken[key.digest] > 1]
        if twice:
            told = {"sha256": ["is that of another entry too; keep one"]}
            raise ValidationError({"keys": dict.fromkeys(twice, told)})


def parse(text: bytes, *, path: Path) -> tuple[Key, ...]:
    """The keys in a file's text. Raises KeysError, which tells all mistakes at once."""
    try:
        return tuple(KeysSchema().load(strictjson.parse(text))["keys"])
    except strictjson.NotJson as exc:
        raise KeysError(path, [Mistake("", f"is not JSON: {exc}; mend it")]) from exc
    except ValidationError as exc:
        raise KeysError(path, list(_mistakes(exc.messages_dict))) from exc


def _mistakes(messages: Any, pointer: str = "") -> Iterator[Mistake]:
    if isinstance(messages, dict):
        for step, inner in messages.items():
            yield from _mistakes(inner, pointer if step == "_schema" else f"{pointer}/{step}")
    else:
        yield from (Mistake(pointer, text) for text in messages)


class KeysFile(RereadFile[Keyring]):
    """The keys as the file has them now; see RereadFile."""

    noun = "keys"
    setting = "MES_API_KEYS_FILE, or make one with: mes key new"
    error = KeysError

    def parse(self, text: bytes) -> Keyring:
        return {key.digest: key for key in parse(text, path=self.path)}


def open_to_others(path: Path) -> bool:
    """May the group or everybody read or change the file?"""
    return bool(path.stat().st_mode & _OTHERS)
