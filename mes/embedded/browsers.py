"""Guard against web pages that reach for this server through somebody's browser."""

from __future__ import annotations

import ipaddress
import socket
from email.message import Message
from urllib.parse import urlsplit

from .errors import Forbidden

LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


def check(headers: Message, bound_to: str) -> None:
    """Forbidden for a page of another site, and for a foreign name that leads to this machine"""
    origin = headers.get("Origin")
    if origin and not _is_local(urlsplit(origin).hostname):
        raise Forbidden("this origin is not allowed")
    if ipaddress.ip_address(bound_to).is_loopback and not _is_local(_host(headers)):
        raise Forbidden("this host name is not allowed")


def _host(headers: Message) -> str:
    return urlsplit(f"//{headers.get('Host') or 'localhost'}").hostname or ""


def _is_local(name: str | None) -> bool:
    if not name:
        return False
    if name in ("localhost", socket.gethostname().lower()) or name.endswith(LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_private or address.is_unspecified
