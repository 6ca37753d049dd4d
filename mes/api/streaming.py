"""Streamed responses: documents are sent as they arrive; a failed stream ends with a problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from flask import Response, request

from mes.api import problems
from mes.api.middleware import add_common_headers, request_log
from mes.api.operation_docs import NDJSON
from mes.api.response_fields import encode_json_line
from mes.api.services import get_services
from mes.api.socket_writer import SocketWriter
from mes.api.stream_keepalive import StreamKeepalive
from mes.errors import ClientDisconnected, ClientTooSlow, MesError
from mes.server.client_socket import PIECE_BYTES

Document = dict[str, Any]

Documents = Iterable[Document]
"""A batch: documents that are available together and are sent together."""


@dataclass(frozen=True)
class Encoder:
    """The encoding of documents in a stream.

    Args:
        before, after: bytes around each document.
        convert_problem: returns the last document of a stream that fails with this problem.
        end: bytes at the end of a stream that succeeded.
        comment: bytes that clients of the format ignore; empty if there are none.
    """

    mimetype: str
    before: bytes
    after: bytes
    convert_problem: Callable[[Document], Document]
    end: bytes = b""
    comment: bytes = b""

    def framed(self, documents: Documents) -> bytes:
        """Return the bytes of the documents."""
        return b"".join([self.before + encode_json_line(each, self.after) for each in documents])


LINES = Encoder(NDJSON, b"", b"\n", lambda problem: {**problem, "type": "error"})


class StreamingResponse:
    """A stream of documents to the client of the present request.

    Batches are either pulled by the server (`response`), or sent directly while the server waits
    for the next batch (`take`). A client that does not read a piece within
    `STREAM_WRITE_TIMEOUT` is disconnected. If the format has comments, one is sent after each
    silence of `STREAM_KEEPALIVE`.
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
        self._keepalive = StreamKeepalive(
            framing.comment,
            seconds=get_services().settings.stream_keepalive_seconds,
            socket_writer=self._socket_writer,
            event_loop=self._event_loop,
        )

    def response(self, batches: Generator[Documents]) -> Response:
        """Return the response, after the first batch has arrived.

        An error before the first batch is raised here, so it gets its own status; a later one
        becomes the last document, also if only a comment was sent before. The generator is closed
        with the response, even if the client has not read all of it.
        """
        self._batches = batches
        response = Response(
            self._pieces(),
            mimetype=self._framing.mimetype,
            # Ask proxies not to buffer the response: clients would see no progress.
            headers={"X-Accel-Buffering": "no"},
        )
        response.call_on_close(self._close)
        self._socket_writer.begin_stream()
        self._keepalive.begin(add_common_headers(response))
        self._first = self._wait_for_first_batch()
        return response

    def _wait_for_first_batch(self) -> Iterator[Documents]:
        try:
            first = iter(list(islice(self._batches, 1)))
        except Exception as exc:
            self._socket_writer.claim()
            if not self._keepalive.has_started_response:
                self._end()
                raise
            return _raise(exc)
        self._socket_writer.claim()
        return first

    def _close(self) -> None:
        self._end()
        self._batches.close()

    def _end(self) -> None:
        self._keepalive.end()
        self._socket_writer.end_stream()

    def take(self, documents: Documents) -> bool:
        """Send the documents without blocking, in any thread; return False if nothing was sent."""
        return self._socket_writer.take(self._framing.framed(documents))

    def can_take_more(self, *, within: float = 0.0) -> bool:
        """Return whether more can be sent within these seconds; False once the client has left."""
        return self._socket_writer.can_take_more(within=within)

    def _pieces(self) -> Iterator[bytes]:
        self._look_in(self._seconds)
        try:
            for documents in chain(self._first, self._batches):
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
            self._end()

    def _sent(self, batch: bytes) -> Iterator[bytes]:
        if not batch:
            return  # the head is sent with the first bytes
        self._socket_writer.claim()
        for start in range(0, len(batch), PIECE_BYTES):
            self._sent_at = time.monotonic()
            self._socket_writer.flush()
            yield batch[start : start + PIECE_BYTES]
            self._sent_at = None
        # Not between two pieces: a comment would be inside of a document.
        self._socket_writer.open()

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


def _raise(error: Exception) -> Iterator[Documents]:
    """Return an iterator that raises the error."""
    raise error
    yield
