"""Endpoints: requests prepared once for each path of the runtime, filled for each question."""

from __future__ import annotations

import json
from typing import Any

import orjson
import requests
from urllib3.util import Url


def prepared(method: str, url: Url, path: str) -> requests.PreparedRequest:
    """All of a request but its body, prepared once because this costs more than sending it."""
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    whole = url._replace(path=(url.path or "").rstrip("/") + path).url
    return requests.Request(method, whole, headers=headers).prepare()


def filled(template: requests.PreparedRequest, body: dict[str, Any]) -> requests.PreparedRequest:
    """Return a copy of the template that carries the body, encoded as JSON."""
    request = template.copy()
    request.prepare_body(_encoded(body), None)
    return request


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # orjson knows no numbers beyond 64 bits, but a caller's schema may name one as a bound.
        return json.dumps(body, default=dict).encode()
