"""Authentication: a key as `Authorization: Bearer` or as `X-API-Key`, and what its scopes allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from flask import request
from flask_httpauth import HTTPTokenAuth
from werkzeug.datastructures import Authorization

from mes.api.operation_docs import extend_operation
from mes.api.request_log import request_log
from mes.api.services import services
from mes.config.api_keys import INFERENCE, ApiKey
from mes.errors import Forbidden, RateLimited, Unauthorized

View = Callable[..., Any]

AUTH_ERRORS = (Unauthorized, Forbidden, RateLimited)


class _KeyAuth(HTTPTokenAuth):
    """`login_required` asks for a key that may infer, `login_required(role=ADMIN)` for more."""

    def login_required(
        self, f: View | None = None, role: str | None = None, optional: Any = None
    ) -> Callable[..., Any]:
        def guard(view: View) -> View:
            guarded = super(_KeyAuth, self).login_required(role=role, optional=optional)(view)
            return extend_operation(guarded, scope=role or INFERENCE, raises=AUTH_ERRORS)

        return guard if f is None else guard(f)

    def get_auth(self) -> Authorization | None:
        headers = request.headers
        if "X-API-Key" in headers and "Authorization" not in headers:
            return Authorization("bearer", token=headers["X-API-Key"])
        return super().get_auth()

    def authorize(self, role: str | None, user: ApiKey, auth: Any) -> bool:
        scope = role or INFERENCE
        if user.allows(scope):
            return True
        has = ", ".join(sorted(user.scopes))
        raise Forbidden(f"this needs a key with the scope {scope}; the key {user.name} has: {has}")


auth = _KeyAuth("Bearer", realm="MES")


@auth.verify_token
def find_key(shown: str) -> ApiKey | None:
    """The key that is shown; None where it is not known. Raises RateLimited."""
    key = services().keys.find(shown)
    if key is not None:
        request_log().key = key.name
    elif shown:
        _note_wrong_key()
    return key


def _note_wrong_key() -> None:
    address = request.remote_addr or ""
    request_log().note(address=address)
    wait_seconds = services().attempts.note(address)
    if wait_seconds is not None:
        raise RateLimited("too many wrong keys from this address", retry_after=wait_seconds)


@auth.error_handler
def refuse_key(status: int) -> NoReturn:
    raise Unauthorized("send the key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")
