"""Streamed answers: a line of JSON for each document as it comes, and a last one whatever comes."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator
from itertools import chain, islice
from typing import Any

from flask import Response, request

from mes.api import problems
from mes.api.answers import encoded
from mes.api.promises import NDJSON
from mes.api.requests import line
from mes.api.services import services
from mes.errors import CallerGone, CallerTooSlow, MesError

Document = dict[str, Any]

# Of a long line; a client on a slow line has the whole deadline for each of these.
_PIECE_BYTES = 65536


def stream(documents: Generator[Document]) -> Response:
    """The documents, in an answer that is under way as soon as the first one is there.

    What is raised before that is an ordinary problem with its status; later it is the last line.
    The documents are closed with the answer, also where nobody has read it to the end.
    """
    first = list(islice(documents, 1))
    told = problems.told(chain(first, documents), line())
    response = Response(
        _Delivery().lines(told),
        mimetype=NDJSON,
        # A proxy that gathers the answer would show no progress.
        headers={"X-Accel-Buffering": "no"},
    )
    response.call_on_close(documents.close)
    return response


class _Delivery:
    """Lines on their way to the client of the present request, who has to take each in time."""

    def __init__(self) -> None:
        self._watch = services().watch
        self._seconds = services().settings.stream_write_timeout_seconds
        self._line = line()
        self._sock: socket.socket | None = request.environ.get("gunicorn.socket")
        self._sent_at: float | None = None

    def lines(self, documents: Iterator[Document]) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for piece in _pieces(documents):
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
            self._note(CallerTooSlow("a line of the stream was not read in time"))
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


def _pieces(documents: Iterator[Document]) -> Iterator[bytes]:
    """The documents as lines, and long lines in pieces."""
    for document in documents:
        line = encoded(document) + b"\n"
        if len(line) <= _PIECE_BYTES:
            yield line
        else:
            yield from (line[at : at + _PIECE_BYTES] for at in range(0, len(line), _PIECE_BYTES))
