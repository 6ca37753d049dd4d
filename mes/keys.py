"""Keys: who may enter, and how far."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

INFERENCE, ADMIN, METRICS = "inference", "admin", "metrics"
SCOPES = (INFERENCE, ADMIN, METRICS)


@dataclass(frozen=True)
class Key:
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

    def reaches(self, scope: str) -> bool:
        """May it do what needs this scope? `admin` may do everything."""
        return scope in self.scopes or ADMIN in self.scopes

    def in_force(self, now: datetime) -> bool:
        return not self.disabled and (self.expires is None or now < self.expires)


# By digest. Looking one up may take longer for some digests than for others, but nobody can choose
# a key by its digest, so the time tells nothing about the keys.
Keyring = Mapping[str, Key]


class Keys:
    """The keys that are accepted now: the one of the settings, and those of a file."""

    def __init__(self, api_key: str | None, of_file: Callable[[], Keyring] = dict) -> None:
        own = [] if api_key is None else [Key("default", frozenset(SCOPES), digest_of(api_key))]
        self._own: Keyring = {key.digest: key for key in own}
        self._of_file = of_file

    def find(self, shown: str) -> Key | None:
        """The key in force that the caller shows; None where there is none."""
        digest = digest_of(shown)
        key = self._own.get(digest) or self._of_file().get(digest)
        return key if key is not None and key.in_force(datetime.now(UTC)) else None


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal.

    Neither salted nor slow: that protects passwords, which people choose. Our keys are 256 random
    bits, which no one guesses however fast the guessing, and each request computes this once.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
