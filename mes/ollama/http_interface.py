"""The undocumented names of urllib3 and http.client that `connections` and `exchange` rely on."""

from __future__ import annotations

import platform
from importlib.metadata import version

from mes.config.library_interface import require_interface

_CONNECTION = "urllib3.connection:HTTPConnection"
_POOL = "urllib3.connectionpool:HTTPConnectionPool"
_TLS_POOL = "urllib3.connectionpool:HTTPSConnectionPool"
_MANAGER = "urllib3.poolmanager:PoolManager"
_RESPONSE = "urllib3.response:HTTPResponse"

# The parameters that our overrides and calls rely on, without `self`.
URLLIB3_SIGNATURES = {
    f"{_CONNECTION}.connect": (),
    f"{_CONNECTION}.close": (),
    f"{_CONNECTION}.is_closed": (),
    f"{_RESPONSE}.connection": (),
    f"{_RESPONSE}.read1": ("amt", "decode_content"),
    f"{_RESPONSE}.release_conn": (),
}

# Attributes that we read or set, and methods of ours that the library must call, by the method of
# the library that uses them.
URLLIB3_USES = {
    f"{_MANAGER}.__init__": ("pool_classes_by_scheme",),
    f"{_MANAGER}._new_pool": ("pool_classes_by_scheme",),
    f"{_POOL}._new_conn": ("ConnectionCls",),
    f"{_TLS_POOL}._new_conn": ("ConnectionCls",),
    f"{_TLS_POOL}._validate_conn": ("connect", "is_closed"),
    f"{_POOL}._make_request": ("getresponse", "request"),
    f"{_CONNECTION}.connect": ("sock",),
    f"{_CONNECTION}.is_closed": ("sock",),
    f"{_CONNECTION}.close": ("sock",),
    f"{_CONNECTION}.request": ("settimeout", "sock", "timeout"),
    f"{_CONNECTION}.getresponse": ("getresponse", "settimeout", "timeout"),
    "urllib3.response:BaseHTTPResponse.__init__": ("chunked",),
    f"{_RESPONSE}.__init__": ("_connection",),
    f"{_RESPONSE}.connection": ("_connection",),
    f"{_RESPONSE}.release_conn": ("_connection",),
}

HTTP_CLIENT_USES = {
    "http.client:HTTPConnection.send": ("connect", "sock"),
    "http.client:HTTPConnection.getresponse": ("begin", "response_class", "sock"),
    "http.client:HTTPResponse.__init__": ("fp", "headers", "makefile", "status"),
    "http.client:HTTPResponse.begin": ("fp", "headers", "status"),
}


def require_expected_http_libraries() -> None:
    """Raise SystemExit if urllib3 or http.client lacks a name that this package depends on."""
    require_interface(
        "urllib3", version("urllib3"), signatures=URLLIB3_SIGNATURES, uses=URLLIB3_USES
    )
    require_interface("Python", platform.python_version(), signatures={}, uses=HTTP_CLIENT_USES)
