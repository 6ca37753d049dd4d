"""Comments in silent streams, because proxies close connections that are silent for 30 to 60 s."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flask import Flask, Response, request

from mes.api.socket_writer import SocketWriter
from mes.event_loop import EventLoop, Timer

_START = "mes.response_start"


class ResponseStart:
    """WSGI's `start_response`, which may also be called while the view still runs."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self.is_sent = False

    def send(self, status: str, headers: list[tuple[str, str]], data: bytes) -> None:
        """Send the head of the response and the data, in any thread."""
        self.is_sent = True
        self._start_response(status, headers)(data)

    def __call__(self, status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        """Start the response, unless it has been started before."""
        return None if self.is_sent else self._start_response(status, headers, *more)


def install_response_start(app: Flask) -> None:
    """Allow streams to start their response while the view waits for the first batch."""
    inner: Callable[..., Iterable[bytes]] = app.wsgi_app

    def with_response_start(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[_START] = start = ResponseStart(start_response)
        return inner(environ, start)

    app.wsgi_app = with_response_start  # type: ignore[method-assign]


class StreamKeepalive:
    """Sends a comment each time that a stream has been silent for `seconds`.

    The first comment starts the response. Without a comment or with 0 seconds it does nothing.
    """

    def __init__(
        self, comment: bytes, *, seconds: float, socket_writer: SocketWriter, event_loop: EventLoop
    ) -> None:
        self._comment = comment
        self._seconds = seconds
        self._socket_writer = socket_writer
        self._event_loop = event_loop
        self._start: ResponseStart = request.environ[_START]
        self._lock = threading.Lock()
        self._timer: Timer | None = None

    @property
    def has_started_response(self) -> bool:
        """Whether a comment has started the response."""
        return self._start.is_sent

    def begin(self, response: Response) -> None:
        """Watch the stream; a comment may start `response`, whose headers must be complete."""
        if self._comment and self._seconds:
            headers = response.get_wsgi_headers(request.environ).to_wsgi_list()
            with self._lock:
                self._watch(partial(self._start.send, response.status, headers, self._comment))

    def end(self) -> None:
        """Send no further comments."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    def _watch(self, send_head: Callable[[], None]) -> None:
        # Only the timer refers to `send_head`, so that no cycle keeps the response in memory.
        when = self._socket_writer.used_at + self._seconds
        self._timer = self._event_loop.call_at(when, partial(self._look, send_head))

    def _look(self, send_head: Callable[[], None]) -> None:
        with self._lock:
            if self._timer is None:
                return
            if self._socket_writer.used_at + self._seconds <= time.monotonic():
                self._send(send_head)
            self._watch(send_head)

    def _send(self, send_head: Callable[[], None]) -> None:
        try:
            if self._start.is_sent or not self._socket_writer.begin(send_head):
                self._socket_writer.take(self._comment)
        except OSError:
            pass  # the client has disconnected, which the server notices
        # While nothing can be sent, try again after the same time.
        self._socket_writer.used_at = time.monotonic()
