"""The requests that unchanged clients send, recorded in `tests/clients/recorded`.

`make test` sends them all to the service; where a client itself runs, its requests are compared
with them. With RECORD_CLIENTS=1 in the environment they are recorded anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.clients.recorder import Exchange

FOLDER = Path(__file__).parent / "recorded"


def names() -> list[str]:
    """Return the names of all recordings."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> list[dict[str, Any]]:
    """Return the requests of a recording, each with `path` and `body`."""
    requests: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return requests


def check(name: str, exchanges: Iterable[Exchange]) -> None:
    """Raise AssertionError if a client sends requests of other kinds than the recorded ones."""
    sent = _one_of_each_kind(
        {"path": each.path, "body": each.body} for each in exchanges if each.method == "POST"
    )
    if os.environ.get("RECORD_CLIENTS"):
        _write(name, list(sent.values()))
    assert sent.keys() == _one_of_each_kind(read(name)).keys(), f"record {name} anew"


def _write(name: str, requests: list[dict[str, Any]]) -> None:
    text = json.dumps(requests, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def _one_of_each_kind(requests: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {}
    for request in requests:
        kinds.setdefault(_kind(request), request)
    return kinds


def _kind(request: dict[str, Any]) -> str:
    return f"{request['path']} {_shape(request['body'])}"


def _shape(value: Any) -> str:
    """Return the names and types of a JSON value, without the values but true and false."""
    if isinstance(value, dict):
        members = (f"{name}:{_shape(each)}" for name, each in sorted(value.items()))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + "|".join(sorted({_shape(each) for each in value})) + "]"
    return str(value) if isinstance(value, bool) else type(value).__name__
