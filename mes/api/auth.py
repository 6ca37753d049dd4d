"""Authentication: a key as `Authorization: Bearer` or as `X-API-Key`, and its scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from flask import request
from flask_httpauth import HTTPTokenAuth
from werkzeug.datastructures import Authorization

from mes.api.middleware import request_log
from mes.api.operation_docs import extend_operation
from mes.api.services import get_services
from mes.config.api_keys import INFERENCE, ApiKey
from mes.errors import Forbidden, RateLimited, Unauthorized

View = Callable[..., Any]

AUTH_ERRORS = (Unauthorized, Forbidden, RateLimited)


class _KeyAuth(HTTPTokenAuth):
    """`login_required` asks for a key of scope `inference`, `login_required(role=...)` for others.

    It also adds the scope and the errors to the view's documentation.
    """

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
        scopes = ", ".join(sorted(user.scopes))
        raise Forbidden(
            f"this needs a key with the scope {scope}; the key {user.name} has: {scopes}"
        )


auth = _KeyAuth("Bearer", realm="MES")


@auth.verify_token
def find_key(secret: str) -> ApiKey | None:
    """Return the key with this secret; None for an unknown one.

    Raises RateLimited after too many wrong keys from the client's address.
    """
    key = get_services().keys.find(secret)
    if key is not None:
        request_log().key = key.name
    elif secret:
        _count_wrong_key()
    return key


def _count_wrong_key() -> None:
    address = request.remote_addr or ""
    request_log().add_fields(address=address)
    wait_seconds = get_services().key_throttle.count(address)
    if wait_seconds is not None:
        raise RateLimited("too many wrong keys from this address", retry_after=wait_seconds)


def has_valid_key(scope: str = INFERENCE) -> bool:
    """Return whether the request has a key with this scope, for a view that needs no key.

    A wrong key counts for the limit of wrong keys, but the request is not refused.
    """
    credentials = auth.get_auth()
    try:
        key = find_key(credentials.token or "") if credentials else None
    except RateLimited:
        return False
    return key is not None and key.allows(scope)


@auth.error_handler
def refuse_key(status: int) -> NoReturn:
    """Raise Unauthorized, so that the error handlers render the response."""
    raise Unauthorized("send the key as 'Authorization: Bearer <key>' or as 'X-API-Key: <key>'")
