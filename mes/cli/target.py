"""The target: which service the commands speak to, and with which key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mes.config import settings
from mes.config.settings_schema import DEVELOPMENT_KEY

# Addresses to listen on, which nobody can call.
_TO_CALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Target:
    url: str
    key: str = field(repr=False)


def find(url: str | None, key: str | None) -> Target:
    """The service that is meant: by option, else by the environment, else the one on this machine.

    A wrong setting of the service is no reason not to speak to it, so nothing is checked here.
    """
    told = settings.unchecked()
    url = url or told.get("MES_URL") or _local(told)
    return Target(
        url=(url if "://" in url else f"http://{url}").rstrip("/"),
        key=key or told.get("MES_API_KEY") or DEVELOPMENT_KEY,
    )


def _local(told: Mapping[str, str]) -> str:
    host = told.get("HOST", "127.0.0.1")
    host = _TO_CALL.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{told.get('PORT', 8001)}"
