"""The base of both servers: gthread without the faults that let slow clients block the others.

Gthread gives a thread to each new connection for up to 5 s and to each request that has begun to
arrive, until its answer has been read, and waits in its main loop for up to 2 s until a client
closes its side. A few slow clients would occupy it. Here the poller waits instead:

- A request gets a thread once it has arrived (of a large one, the head). A limited number of
  threads wait for large bodies.
- The poller sends what a client does not read of an answer at once. Only streams keep a thread.
- The poller waits until a client has closed its side.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from threading import BoundedSemaphore
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker

from mes.server.client_socket import ClientSocket, UnreadAnswers
from mes.server.connection import RequestReader, RequestTooSlow, send_refusal
from mes.server.request_kinds import ServiceBusy

log = logging.getLogger(__name__)

_ARRIVAL_SECONDS = 10.0
_BODY_SECONDS = 30.0
# In addition to the threads for requests that have arrived, so that those always have one.
BODY_THREADS = 32
# An unread body up to this size is discarded; with a larger one the connection is closed.
_DISCARDED_BODY_BYTES = 64 * 1024
_LINGER_SECONDS = 2.0


class PollingWorker(ThreadWorker):
    """Gives threads to requests that have arrived, and to nothing else.

    A connection may be closed to make room for another one while its own event waits in the same
    round of the poller, so a callback ignores a connection that is in its state no longer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._body_waits = BoundedSemaphore(BODY_THREADS)
        # The deadline of each request that is still arriving, earliest first.
        self._arriving: dict[TConn, float] = {}
        self._lingering: deque[TConn] = deque()

    @property
    def max_body_bytes(self) -> int:
        """The maximum size of a chunk of a body; the application limits the whole body."""
        raise NotImplementedError

    @property
    def write_timeout_seconds(self) -> float:
        """The time that a client has for each piece of an answer that is no stream."""
        raise NotImplementedError

    def admit(self, conn: TConn) -> None:
        """Count a request that has arrived until `release`. May raise ServiceBusy."""

    def release(self, conn: TConn) -> None:
        """End the count of a request, after its answer was sent or its connection closed."""

    def give_thread(self, conn: TConn) -> None:
        """Let a thread serve the request that has arrived; then `finish_request` is called."""
        super().enqueue_req(conn)

    def run(self) -> None:
        self._unread = UnreadAnswers(
            self.poller, seconds=self.write_timeout_seconds, when_lost=self.forget
        )
        super().run()

    def accept(self, listener: socket.socket) -> None:
        try:
            super().accept(listener)
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # gunicorn would let the worker die, with all requests that it serves.
            log.warning("file_descriptors_exhausted", extra={"connections": self.nr_conns})
            self._make_room()
            time.sleep(0.01)  # where no connection could be closed, the error recurs at once

    def enqueue_req(self, conn: TConn) -> None:
        """Wait for the next request of a connection, in the poller."""
        if not conn.initialized:
            conn.sock = ClientSocket.adopt(conn.sock)
            conn.init()
            conn.parser.unreader = RequestReader(
                conn.sock, self._body_waits, max_body_bytes=self.max_body_bytes
            )
        conn.sock.setblocking(False)
        self._arriving[conn] = time.monotonic() + _ARRIVAL_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        self._on_readable(conn, conn.sock)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        if conn in self.keepalived_conns:
            super().on_client_socket_readable(conn, client)

    def handle(self, conn: TConn) -> Any:
        conn.sock.is_stream = False
        conn.parser.unreader.deadline = time.monotonic() + _BODY_SECONDS
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        send_refusal(client, exc)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        if conn.sock.unsent_bytes:
            self._unread.add(conn, partial(self._finish_answer, conn, fs))
        else:
            self._finish_answer(conn, fs)

    def _finish_answer(self, conn: TConn, fs: Future[Any]) -> None:
        self.release(conn)
        if fs.cancelled() or fs.exception() is not None or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        self._unread.close_expired()
        now = time.monotonic()
        while self._arriving and next(iter(self._arriving.values())) < now:
            self._refuse(next(iter(self._arriving)), RequestTooSlow())
        while self._lingering and self._lingering[0].timeout < now:
            self._close_lingering(self._lingering[0])
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        # No thread waits for the rest of a body that the application has not read.
        conn.parser.unreader.deadline = 0.0
        return keepalive and bool(conn.parser.finish_body(max_bytes=_DISCARDED_BODY_BYTES))

    def limit_arrival_times(self, deadline: float) -> None:
        """Refuse requests that have not arrived by `deadline` (of `time.monotonic()`)."""
        self._arriving = {conn: min(by, deadline) for conn, by in self._arriving.items()}

    def forget(self, conn: TConn) -> None:
        """Note that a connection was closed before its answer was sent."""
        self.release(conn)
        self.nr_conns -= 1

    def _on_readable(self, conn: TConn, _: socket.socket) -> None:
        """Read from a connection; give a complete request a thread, and refuse an invalid one."""
        if conn not in self._arriving:
            return
        try:
            if conn.parser.unreader.gather():
                self.admit(conn)
                self._stop_arrival(conn)
                self.give_thread(conn)
        except (ParseException, ServiceBusy) as exc:
            self._refuse(conn, exc)
        except OSError:
            self._drop(conn)

    def _make_room(self) -> None:
        """Close the connection whose client has kept it open longest without need.

        First those with a complete answer, then those whose request still arrives, then all idle.
        """
        if self._lingering:
            self._close_lingering(self._lingering[0])
        elif self._arriving:
            self._drop(next(iter(self._arriving)))
        else:
            self.murder_keepalived(force=True)

    def _refuse(self, conn: TConn, exc: Exception) -> None:
        if conn.parser.unreader.has_begun:
            self._stop_arrival(conn)
            send_refusal(conn.sock, exc)
            self._linger(conn)
        else:
            self._drop(conn)  # the client would take an answer for that to its next request

    def _drop(self, conn: TConn) -> None:
        self._stop_arrival(conn)
        self.nr_conns -= 1
        conn.close()

    def _stop_arrival(self, conn: TConn) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)

    def _linger(self, conn: TConn) -> None:
        """Close the sending side, and the socket once the client has closed (RFC 9112, 9.6)."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
        except OSError:  # the client has disconnected
            self.nr_conns -= 1
            conn.close()
            return
        conn.timeout = time.monotonic() + _LINGER_SECONDS
        self._lingering.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: TConn, sock: socket.socket) -> None:
        if conn not in self._lingering:
            return
        try:
            # Unread bytes would make the kernel reset the connection, and the answer with it.
            if sock.recv(65536):
                return
        except OSError:
            pass
        self._close_lingering(conn)

    def _close_lingering(self, conn: TConn) -> None:
        self._lingering.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()
