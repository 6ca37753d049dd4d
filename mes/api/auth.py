"""Authentication: a key as `Authorization: Bearer` or as `X-API-Key`."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

from flask import request
from flask_httpauth import HTTPTokenAuth
from werkzeug.datastructures import Authorization

from mes.api.services import services
from mes.errors import Unauthorized


class _KeyAuth(HTTPTokenAuth):
    def get_auth(self) -> Authorization | None:
        key = request.headers.get("X-API-Key")
        if key is not None and "Authorization" not in request.headers:
            return Authorization("bearer", token=key)
        return super().get_auth()


auth = _KeyAuth("Bearer", realm="MES")


@auth.verify_token
def key_name(key: str) -> str | None:
    """The name under which a key is known; None where it is not."""
    # Digests are of equal length, so the time tells nothing about the key.
    known = hmac.compare_digest(_digest(key), _digest(services().settings.api_key))
    return "default" if known else None


@auth.error_handler
def refuse(status: int) -> NoReturn:
    raise Unauthorized("send the key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
