"""Model names, read as Ollama reads them: `:latest` is implied, case does not matter."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import BadRequest

PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
IMPLIED = ("registry.ollama.ai", "library")


@dataclass(frozen=True)
class Name:
    """`path` is what stands before the tag, without what is implied"""

    path: str
    tag: str = "latest"

    def __str__(self) -> str:
        return f"{self.path}:{self.tag}"

    @property
    def key(self) -> str:
        """Equal for all spellings of one name"""
        return str(self).casefold()

    @property
    def full(self) -> str:
        """With registry and library, as Ollama's capability errors spell it"""
        slashes = self.path.count("/")
        return "/".join((*IMPLIED[: max(0, 2 - slashes)], str(self)))


def parse(text: object) -> Name:
    """BadRequest("invalid model name") where Ollama would say so"""
    if not isinstance(text, str):
        raise BadRequest("invalid model name")
    path, tag = _split(re.sub(r"^https?://", "", text.strip()))
    parts = path.split("/")
    if len(parts) > 3 or not all(PART.fullmatch(part) for part in (*parts, tag)):
        raise BadRequest("invalid model name")
    return Name(_without_implied(parts), tag)


def _split(text: str) -> tuple[str, str]:
    head, colon, tag = text.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (text, "latest")


def _without_implied(parts: list[str]) -> str:
    if len(parts) == 3 and parts[0].casefold() == IMPLIED[0]:
        parts = parts[1:]
    if len(parts) == 2 and parts[0].casefold() == IMPLIED[1]:
        parts = parts[1:]
    return "/".join(parts)
