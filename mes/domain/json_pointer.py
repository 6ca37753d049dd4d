"""JSON pointers (RFC 6901): paths into a document, such as `/messages/0/content`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def json_pointer(path: Iterable[Any]) -> str:
    """Return a path into a document as a JSON pointer; `a/b` becomes `/a~1b`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def pointer_steps(pointer: str) -> list[str]:
    """Return the steps of a JSON pointer; `/a~1b` becomes `a/b`."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
