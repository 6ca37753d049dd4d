"""Authentication: a key as `Authorization: Bearer` or as `X-API-Key`."""

from __future__ import annotations

from typing import NoReturn

from flask import request
from flask_httpauth import HTTPTokenAuth
from werkzeug.datastructures import Authorization

from mes.api.services import services
from mes.errors import Unauthorized


class _KeyAuth(HTTPTokenAuth):
    def get_auth(self) -> Authorization | None:
        headers = request.headers
        if "X-API-Key" in headers and "Authorization" not in headers:
            return Authorization("bearer", token=headers["X-API-Key"])
        return super().get_auth()


auth = _KeyAuth("Bearer", realm="MES")


@auth.verify_token
def key_name(key: str) -> str | None:
    """The name under which a key is known; None where it is not."""
    return services().keys.name_of(key)


@auth.error_handler
def refuse(status: int) -> NoReturn:
    raise Unauthorized("send the key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")
