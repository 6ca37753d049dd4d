"""A time limit for work that the engine cannot interrupt: compiling a grammar, and a chat template.

The work goes on in the engine after its client has left. So the limit is watched in a thread of its
own, and an engine that exceeds it is ended; the next request loads the model again.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from threading import Thread
from typing import TypeVar

from mes.embedded.client_connection import CLIENT_CHECK_SECONDS, ClientConnection
from mes.embedded.engine import Engine

T = TypeVar("T")


class EngineStalled(Exception):
    """The engine did not answer within the limit, and was ended."""


class SilenceLimit(ClientConnection):
    """Stands for the client of a request, and ends the engine if it is silent for too long.

    Args:
        hears_streams: whether the tokens of other requests show that the engine is not stalled.
    """

    def __init__(self, engine: Engine, *, hears_streams: bool) -> None:
        self._engine = engine
        self._hears_streams = hears_streams

    def check(self) -> None:
        """Do nothing: there is no client that could leave."""

    def wait_for(self, other: socket.socket) -> None:
        """Wait until `other` is readable. Raise `EngineStalled` at the limit."""
        limit = self._engine.launch.compile_timeout_seconds
        started = time.monotonic()
        poll = select.poll()
        poll.register(other, select.POLLIN)
        while not poll.poll(min(limit, 1.0) * 250):
            heard = self._engine.last_event if self._hears_streams else 0.0
            if time.monotonic() - max(started, heard) > limit:
                self._engine.end_stalled()
                raise EngineStalled


def finish_without_client(work: Callable[[], T], client: ClientConnection) -> T:
    """Return the result of `work`, which runs in a thread of its own, to its end.

    Raises:
        ClientLeft: the client has left; the work goes on.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as exc:
            result.set_exception(exc)

    Thread(target=run, name="work without a client", daemon=True).start()
    while True:
        try:
            return result.result(CLIENT_CHECK_SECONDS)
        except NotYet:
            client.check()
