"""Streamed answers: each document as it comes, and a last one whatever comes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from flask import Response, request

from mes.api import problems
from mes.api.answers import encoded
from mes.api.promises import NDJSON
from mes.api.requests import Line, line
from mes.api.services import services
from mes.errors import CallerGone, CallerTooSlow, MesError

Document = dict[str, Any]

# Of a long document; a client on a slow line has the whole deadline for each of these.
_PIECE_BYTES = 65536


@dataclass(frozen=True)
class Framing:
    """How documents stand in the answer; `told` makes the last one of a problem."""

    mimetype: str
    before: bytes
    after: bytes
    told: Callable[[Document], Document]
    end: tuple[bytes, ...] = ()
    """closes what has gone well"""

    def framed(self, document: Document) -> bytes:
        return b"".join((self.before, encoded(document), self.after))


LINES = Framing(NDJSON, b"", b"\n", lambda problem: {**problem, "type": "error"})


def stream(documents: Generator[Document], framing: Framing = LINES) -> Response:
    """The documents, in an answer that is under way as soon as the first one is there.

    What is raised before that is an ordinary problem with its status; later it is the last line.
    The documents are closed with the answer, also where nobody has read it to the end.
    """
    first = list(islice(documents, 1))
    told = _told(chain(first, documents), framing, line())
    response = Response(
        _Delivery().pieces(told),
        mimetype=framing.mimetype,
        # A proxy that gathers the answer would show no progress.
        headers={"X-Accel-Buffering": "no"},
    )
    response.call_on_close(documents.close)
    return response


def _told(documents: Iterable[Document], framing: Framing, own: Line) -> Iterator[bytes]:
    """Where the documents break off, the last one tells of the error."""
    whole = chain(map(framing.framed, documents), framing.end)
    return problems.told(whole, own, lambda problem: framing.framed(framing.told(problem)))


class _Delivery:
    """An answer on its way to the client of the present request, who has to take each in time."""

    def __init__(self) -> None:
        self._watch = services().watch
        self._seconds = services().settings.stream_write_timeout_seconds
        self._line = line()
        self._sock: socket.socket | None = request.environ.get("gunicorn.socket")
        self._sent_at: float | None = None

    def pieces(self, framed: Iterator[bytes]) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for piece in chain.from_iterable(map(_cut, framed)):
                self._sent_at = time.monotonic()
                yield piece
                self._sent_at = None
        except GeneratorExit:
            self._note(CallerGone("the caller has hung up"))
            raise
        finally:
            self._alarm.call_off()

    def _look_in(self, seconds: float) -> None:
        # One alarm at a time: one for each line would cost as much as sending it.
        self._alarm = self._watch.at(time.monotonic() + seconds, self._look)

    def _look(self) -> None:
        sent_at = self._sent_at
        left = self._seconds if sent_at is None else sent_at + self._seconds - time.monotonic()
        if left > 0:
            self._look_in(left)
        else:
            self._note(CallerTooSlow("a part of the stream was not read in time"))
            self._shut_down()

    def _shut_down(self) -> None:
        if self._sock is None:
            return
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the writer, who is stuck in it
        except OSError:
            pass  # the client was quicker

    def _note(self, error: MesError) -> None:
        if self._line.code is None:
            self._line.end_as(problems.status_of(error), error.code)


def _cut(framed: bytes) -> Iterator[bytes]:
    """It, or where it is long its pieces."""
    return (framed[at : at + _PIECE_BYTES] for at in range(0, len(framed), _PIECE_BYTES))
