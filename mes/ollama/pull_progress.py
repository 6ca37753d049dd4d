"""A pull's answer: progress line by line, and a success only where the runtime says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mes.domain import PullProgress
from mes.errors import MesError, PullFailed, RuntimeReplyInvalid
from mes.ollama import responses

_LONGEST_LINE_BYTES = 65536


def parse_progress(pieces: Iterable[bytes]) -> Iterator[PullProgress]:
    """What the runtime tells of the pull until it says that it was a success.

    It answers 200 before it knows, so a failure is a line too. Raises PullFailed.
    """
    for part in responses.parse_parts(_bounded(pieces), otherwise=PullFailed):
        status = responses.plain_text(str(part.get("status", "")))
        if status == "success":
            return
        yield PullProgress(status, _bytes(part.get("completed")), _bytes(part.get("total")))
    raise PullFailed("the pull ended without saying that it was done")


def pull_error_from(no: responses.ErrorResponse, *, tag: str) -> MesError:
    """An answer other than 200; a 404 is about the place that models come from."""
    if no.status in (400, 403, 404, 500) and no.text:
        return PullFailed(no.text)
    return responses.error_from(no, tag=tag)


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces: a pull may tell any number of lines, but none without end."""
    size = 0
    for piece in pieces:
        _, newline, begun = piece.rpartition(b"\n")
        size = len(begun) + (0 if newline else size)
        if size > _LONGEST_LINE_BYTES:
            raise RuntimeReplyInvalid("the runtime sent a line without end")
        yield piece


def _bytes(value: Any) -> int | None:
    # A strange number spoils a progress bar, which is no reason to give up a pull.
    return value if type(value) is int and value >= 0 else None
