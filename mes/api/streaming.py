"""Streamed responses: documents are sent as they arrive; a failed stream ends with a problem."""

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
from mes.api.middleware import request_log
from mes.api.operation_docs import NDJSON
from mes.api.response_fields import encode_json_line
from mes.api.services import get_services
from mes.errors import ClientDisconnected, ClientTooSlow, MesError

Document = dict[str, Any]

Documents = Iterable[Document]
"""A batch: documents that are available together and are sent together."""


# Batches are sent in pieces of this size; a slow client has the full timeout for each of them.
_PIECE_BYTES = 65536


@dataclass(frozen=True)
class Encoder:
    """The encoding of documents in a stream.

    Args:
        before, after: bytes around each document.
        convert_problem: returns the last document of a stream that fails with this problem.
        end: bytes at the end of a stream that succeeded.
    """

    mimetype: str
    before: bytes
    after: bytes
    convert_problem: Callable[[Document], Document]
    end: bytes = b""

    def framed(self, documents: Documents) -> bytes:
        """Return the bytes of the documents."""
        return b"".join([self.before + encode_json_line(each, self.after) for each in documents])


LINES = Encoder(NDJSON, b"", b"\n", lambda problem: {**problem, "type": "error"})


class StreamingResponse:
    """A stream of documents to the client of the present request.

    Batches are either pulled by the server (`response`), or sent directly while the server waits
    for the next batch (`take`). A client that does not read a piece within
    `STREAM_WRITE_TIMEOUT` is disconnected.
    """

    def __init__(self, framing: Encoder = LINES) -> None:
        self._framing = framing
        self._event_loop = get_services().event_loop
        self._seconds = get_services().settings.stream_write_timeout_seconds
        self._line = request_log()
        self._socket_writer = SocketWriter(
            request.environ.get("gunicorn.socket"),
            in_chunks=request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1",
        )
        self._sent_at: float | None = None

    def response(self, batches: Generator[Documents]) -> Response:
        """Return the response, after the first batch has arrived.

        An error before the first batch is raised here, so it gets its own status; a later one
        becomes the last document. The generator is closed with the response, even if the client
        has not read all of it.
        """
        first = list(islice(batches, 1))
        response = Response(
            self._pieces(chain(first, batches)),
            mimetype=self._framing.mimetype,
            # Ask proxies not to buffer the response: clients would see no progress.
            headers={"X-Accel-Buffering": "no"},
        )
        response.call_on_close(batches.close)
        return response

    def take(self, documents: Documents) -> bool:
        """Send the documents without blocking, in any thread; return False if nothing was sent."""
        return self._socket_writer.take(self._framing.framed(documents))

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Return whether more can be sent within these seconds; False once the client has left."""
        return self._socket_writer.can_take_more(within=within)

    def _pieces(self, batches: Iterator[Documents]) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for documents in batches:
                yield from self._sent(self._framing.framed(documents))
            yield from self._sent(self._framing.end)
        except GeneratorExit:
            self._note(ClientDisconnected("the client has disconnected"))
            raise
        except Exception as exc:
            problem = problems.problem_at_end_of_stream(exc, self._line)
            yield from self._sent(self._framing.framed([self._framing.convert_problem(problem)]))
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
        # One timer at a time: a timer for each piece would cost as much as sending it.
        self._timer = self._event_loop.call_at(time.monotonic() + seconds, self._look)

    def _look(self) -> None:
        sent_at = self._sent_at
        left = self._seconds if sent_at is None else sent_at + self._seconds - time.monotonic()
        if left > 0:
            self._look_in(left)
        else:
            self._note(ClientTooSlow("the client did not read the stream in time"))
            self._socket_writer.shut_down()

    def _note(self, error: MesError) -> None:
        if self._line.code is None:
            self._line.set_outcome(problems.status_for(error), error.code)


# Writing to the socket.


class SocketWriter:
    """Writes to the client's socket without blocking, in place of the server.

    It writes only after the server has sent the head of the response, and while the server waits
    for the next batch. One thread at a time may use it. Without a socket, all data goes through
    the server. Together with StreamPump it saves 42 to 44 % of the CPU of a token with 32 streams:
    the server's own `write` would have to run in the thread of each stream.
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
        """Allow writing: the server has sent the head of the response."""
        self._is_open = self._sock is not None

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Return whether more can be sent within these seconds; False once the client has left."""
        for _, event in self._room.poll(within * 1000):
            return bool(event & select.POLLOUT)
        return self._sock is None

    def take(self, data: bytes) -> bool:
        """Send the data as far as there is room, the rest later; return False if none was sent."""
        if not self._is_open or (self._unsent and not self._rest_is_sent()):
            return False
        framed = b"%X\r\n%b\r\n" % (len(data), data) if self._in_chunks else data
        sent = self._send(framed)
        if 0 < sent < len(framed):
            self._unsent = framed[sent:]
        return sent > 0

    def flush(self) -> None:
        """Wait until all accepted data is sent."""
        unsent, self._unsent = self._unsent, b""
        if unsent and self._sock is not None:
            try:
                self._sock.sendall(unsent)
            except OSError:
                pass  # the server meets the same error and handles it

    def shut_down(self) -> None:
        """Shut the connection down, in any thread; this wakes a thread that waits for room."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client has disconnected already

    def _rest_is_sent(self) -> bool:
        self._unsent = self._unsent[self._send(self._unsent) :]
        return not self._unsent

    def _send(self, data: bytes) -> int:
        assert self._sock is not None
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return 0  # no room or no client: the thread of the stream handles both
