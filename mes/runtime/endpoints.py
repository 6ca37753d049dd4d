"""Endpoints: requests prepared once for each path of the runtime, filled for each question."""

from __future__ import annotations

import json
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.util import Url


class Adapter(HTTPAdapter):
    """An adapter with one pool, which spares a request all that serves many hosts.

    It keeps no cookies and knows no proxies, whatever the environment says.
    """

    def __init__(self, connections: HTTPConnectionPool) -> None:
        super().__init__()
        self._connections = connections

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._connections

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        return response


def prepared(method: str, url: Url, path: str) -> requests.PreparedRequest:
    """All of a request but its body, prepared once because this costs more than sending it."""
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    whole = url._replace(path=(url.path or "").rstrip("/") + path).url
    request = requests.Request(method, whole, headers=headers).prepare()
    # A plain dict: these names need no folding, and every request copies it three times.
    vars(request)["headers"] = dict(request.headers)
    return request


def filled(template: requests.PreparedRequest, body: dict[str, Any]) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    vars(request).update(vars(template))  # copy() also copies what never changes
    request.body = _encoded(body)
    vars(request)["headers"] = {**template.headers, "Content-Length": str(len(request.body))}
    return request


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # orjson knows no numbers beyond 64 bits, but a caller's schema may name one as a bound.
        return json.dumps(body, default=dict).encode()
