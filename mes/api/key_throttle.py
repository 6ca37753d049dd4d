"""Attempts: wrong keys, counted by the address that showed them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from cachetools import TTLCache

_MOST = 10
_WINDOW_SECONDS = 60.0
# Whoever commands more addresses than this is not to be stopped here, but fills no memory either.
_ADDRESSES = 10_000


@dataclass(slots=True)
class _Window:
    ends_at: float
    wrong: int = 0


class KeyThrottle:
    """Up to ten wrong keys a minute and address, in each worker process. Thread-safe."""

    def __init__(self) -> None:
        self._windows: TTLCache[str, _Window] = TTLCache(_ADDRESSES, _WINDOW_SECONDS)
        self._lock = threading.Lock()

    def note(self, address: str) -> float | None:
        """Count one wrong key; where it is one too many, the seconds until the next is welcome."""
        now, network = time.monotonic(), _network(address)
        with self._lock:
            window = self._windows.get(network)
            if window is None:
                # Changed in place from here on, so that it ends in a minute whatever comes.
                window = self._windows[network] = _Window(now + _WINDOW_SECONDS)
            window.wrong += 1
        return window.ends_at - now if window.wrong > _MOST else None


def _network(address: str) -> str:
    """The address; of version 6 the network, because whoever has one address there has them all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
