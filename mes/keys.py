"""Keys: who may enter."""

from __future__ import annotations

import hashlib
import hmac


class Keys:
    """The keys that are accepted. Only their digests are kept."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    def name_of(self, key: str) -> str | None:
        """The name under which a key is known; None where it is not."""
        # Digests are of equal length, so the time tells nothing about the key.
        return "default" if hmac.compare_digest(_digest(key), self._digest) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
