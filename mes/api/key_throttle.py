"""A limit on wrong keys: ten a minute for each client address."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from cachetools import TTLCache

_MAX_WRONG_KEYS = 10
_WINDOW_SECONDS = 60.0
# An attacker with more addresses than this cannot be stopped here, but must not fill the memory.
_MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class _Window:
    ends_at: float
    wrong_keys: int = 0


class KeyThrottle:
    """Counts wrong keys by address, in each worker process. Thread-safe."""

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
