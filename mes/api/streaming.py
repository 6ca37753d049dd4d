"""Streamed answers: documents as they come, and a last one whatever comes."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from flask import Response, request

from mes.api import problems
from mes.api.operation_docs import NDJSON
from mes.api.request_log import request_log
from mes.api.serializers import encode_json
from mes.api.services import services
from mes.errors import ClientDisconnected, ClientTooSlow, MesError

Document = dict[str, Any]

Documents = Iterable[Document]
"""Those that are there at once, and are sent so."""


# Of what is sent at once; a client on a slow line has the whole deadline for each of these.
_PIECE_BYTES = 65536


@dataclass(frozen=True)
class Encoder:
    """How documents stand in the answer; `told` makes the last one of a problem."""

    mimetype: str
    before: bytes
    after: bytes
    told: Callable[[Document], Document]
    end: bytes = b""
    """closes what has gone well"""

    def framed(self, documents: Documents) -> bytes:
        return b"".join([self.before + encode_json(each, self.after) for each in documents])


LINES = Encoder(NDJSON, b"", b"\n", lambda problem: {**problem, "type": "error"})


class StreamingResponse:
    """Documents on their way to the client of the present request, who has to take them in time.

    They come in batches, which the server asks for (`response`), or are taken while it waits for
    the next batch (`take`).
    """

    def __init__(self, framing: Encoder = LINES) -> None:
        self._framing = framing
        self._event_loop = services().event_loop
        self._seconds = services().settings.stream_write_timeout_seconds
        self._line = request_log()
        self._socket_writer = SocketWriter(
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
        return self._socket_writer.take(self._framing.framed(documents))

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Can something be sent without a wait, or within so many seconds? False once it left."""
        return self._socket_writer.can_take_more(within=within)

    def _pieces(self, batches: Iterator[Documents]) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for documents in batches:
                yield from self._sent(self._framing.framed(documents))
            yield from self._sent(self._framing.end)
        except GeneratorExit:
            self._note(ClientDisconnected("the caller has hung up"))
            raise
        except Exception as exc:
            told = self._framing.told(problems.problem_at_end_of_stream(exc, self._line))
            yield from self._sent(self._framing.framed([told]))
        finally:
            self._timer.cancel()

    def _sent(self, batch: bytes) -> Iterator[bytes]:
        for start in range(0, len(batch), _PIECE_BYTES):
            self._sent_at = time.monotonic()
            self._socket_writer.flush()
            yield batch[start : start + _PIECE_BYTES]
            self._socket_writer.open()
            self._sent_at = None

    def _look_in(self, seconds: float) -> None:
        # One alarm at a time: one for each line would cost as much as sending it.
        self._timer = self._event_loop.call_at(time.monotonic() + seconds, self._observe)

    def _observe(self) -> None:
        sent_at = self._sent_at
        left = self._seconds if sent_at is None else sent_at + self._seconds - time.monotonic()
        if left > 0:
            self._look_in(left)
        else:
            self._note(ClientTooSlow("a part of the stream was not read in time"))
            self._socket_writer.shut_down()

    def _note(self, error: MesError) -> None:
        if self._line.code is None:
            self._line.set_outcome(problems.status_for(error), error.code)


# The outlet: the way to a client, for who would rather do something else than wait.


class SocketWriter:
    """Writes what the server would write, once that has begun the answer and while it does nothing.

    For one thread at a time, whichever that is. Without a socket all goes through the server.
    """

    def __init__(self, sock: socket.socket | None, *, in_chunks: bool) -> None:
        self._sock = sock
        self._in_chunks = in_chunks
        self._is_open = False
        self._unsent = b""
        self._room = select.poll()
        if sock is not None and sock.fileno() >= 0:
            self._room.register(sock, select.POLLOUT | select.POLLRDHUP)

    def open(self) -> None:
        """The server has begun the answer."""
        self._is_open = self._sock is not None

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Can something be sent without a wait, or within so many seconds? False once it left."""
        for _, what in self._room.poll(within * 1000):
            return bool(what & select.POLLOUT)
        return self._sock is None

    def take(self, data: bytes) -> bool:
        """Send what there is room for, and the rest later; False where nothing of it was taken."""
        if not self._is_open or (self._unsent and not self._rest_is_sent()):
            return False
        framed = b"%X\r\n%b\r\n" % (len(data), data) if self._in_chunks else data
        sent = self._send(framed)
        if 0 < sent < len(framed):
            self._unsent = framed[sent:]
        return sent > 0

    def flush(self) -> None:
        """Wait until all is sent that was taken."""
        unsent, self._unsent = self._unsent, b""
        if unsent and self._sock is not None:
            try:
                self._sock.sendall(unsent)
            except OSError:
                pass  # the server will find out as well, and knows what to do

    def shut_down(self) -> None:
        """Nothing more is sent. Any thread may call this; it wakes one that waits for room."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was quicker

    def _rest_is_sent(self) -> bool:
        self._unsent = self._unsent[self._send(self._unsent) :]
        return not self._unsent

    def _send(self, data: bytes) -> int:
        assert self._sock is not None
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return 0  # no room, or nobody there: both are for the stream's own thread
