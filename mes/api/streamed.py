"""Streamed answers: documents as they come, and a last one whatever comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from flask import Response, request

from mes.api import problems
from mes.api.answers import encoded
from mes.api.outlet import Outlet
from mes.api.promises import NDJSON
from mes.api.requests import line
from mes.api.services import services
from mes.errors import CallerGone, CallerTooSlow, MesError

Document = dict[str, Any]

Documents = Iterable[Document]
"""Those that are there at once, and are sent so."""


# Of what is sent at once; a client on a slow line has the whole deadline for each of these.
_PIECE_BYTES = 65536


@dataclass(frozen=True)
class Framing:
    """How documents stand in the answer; `told` makes the last one of a problem."""

    mimetype: str
    before: bytes
    after: bytes
    told: Callable[[Document], Document]
    end: bytes = b""
    """closes what has gone well"""

    def framed(self, documents: Documents) -> bytes:
        return b"".join([self.before + encoded(each, self.after) for each in documents])


LINES = Framing(NDJSON, b"", b"\n", lambda problem: {**problem, "type": "error"})


class Delivery:
    """Documents on their way to the client of the present request, who has to take them in time.

    They come in batches, which the server asks for (`response`), or are taken while it waits for
    the next batch (`take`).
    """

    def __init__(self, framing: Framing = LINES) -> None:
        self._framing = framing
        self._watch = services().watch
        self._seconds = services().settings.stream_write_timeout_seconds
        self._line = line()
        self._outlet = Outlet(
            request.environ.get("gunicorn.socket"),
            in_chunks=request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1",
        )
        self._sent_at: float | None = None

    def response(self, batches: Generator[Documents]) -> Response:
        """The documents, in an answer that is under way as soon as the first one is there.

        What is raised before that is an ordinary problem with its status; later it is the last one.
        The batches are closed with the answer, also where nobody has read it to the end.
        """
        first = list(islice(batches, 1))
        response = Response(
            self._pieces(chain(first, batches)),
            mimetype=self._framing.mimetype,
            # A proxy that gathers the answer would show no progress.
            headers={"X-Accel-Buffering": "no"},
        )
        response.call_on_close(batches.close)
        return response

    def take(self, documents: Documents) -> bool:
        """Send them without a wait, in any thread; False where none of them was taken."""
        return self._outlet.take(self._framing.framed(documents))

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Can something be sent without a wait, or within so many seconds? False once it left."""
        return self._outlet.can_take_more(within=within)

    def _pieces(self, batches: Iterator[Documents]) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for documents in batches:
                yield from self._sent(self._framing.framed(documents))
            yield from self._sent(self._framing.end)
        except GeneratorExit:
            self._note(CallerGone("the caller has hung up"))
            raise
        except Exception as exc:
            told = self._framing.told(problems.last_word(exc, self._line))
            yield from self._sent(self._framing.framed([told]))
        finally:
            self._alarm.call_off()

    def _sent(self, batch: bytes) -> Iterator[bytes]:
        for start in range(0, len(batch), _PIECE_BYTES):
            self._sent_at = time.monotonic()
            self._outlet.flush()
            yield batch[start : start + _PIECE_BYTES]
            self._outlet.open()
            self._sent_at = None

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
            self._outlet.shut_down()

    def _note(self, error: MesError) -> None:
        if self._line.code is None:
            self._line.end_as(problems.status_of(error), error.code)
