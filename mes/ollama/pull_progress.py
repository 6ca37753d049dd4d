"""The response to a pull: lines of progress, and a last line that reports success or an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mes.domain import PullProgress
from mes.errors import MesError, PullFailed, RuntimeReplyInvalid
from mes.ollama import error_responses, responses

_MAX_LINE_BYTES = 65536


def parse_progress(body: Iterable[bytes]) -> Iterator[PullProgress]:
    """Yield the progress of a pull until the runtime reports success.

    The status is 200 before the runtime knows the outcome, so an error is a line as well.
    Raises PullFailed.
    """
    for part in responses.parse_lines(_limit_lines(body), error_class=PullFailed):
        status = responses.to_plain_text(str(part.get("status", "")))
        if status == "success":
            return
        yield PullProgress(status, _bytes(part.get("completed")), _bytes(part.get("total")))
    raise PullFailed("the pull ended without saying that it was done")


def pull_error_from(refusal: error_responses.ErrorResponse, *, tag: str) -> MesError:
    """Return the error of a refused pull; a 404 comes from the registry that models come from."""
    if refusal.status in (400, 403, 404, 500) and refusal.text:
        return PullFailed(refusal.text)
    return error_responses.error_from(refusal, tag=tag)


def _limit_lines(body: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same pieces. The number of lines is not limited, but the length of each one is."""
    size = 0
    for piece in body:
        _, newline, begun = piece.rpartition(b"\n")
        size = len(begun) + (0 if newline else size)
        if size > _MAX_LINE_BYTES:
            raise RuntimeReplyInvalid("the runtime sent a line without end")
        yield piece


def _bytes(value: Any) -> int | None:
    # An invalid number only affects a progress bar, so the pull continues.
    return value if type(value) is int and value >= 0 else None
