"""A time limit for work that the engine cannot interrupt: compiling a grammar, and a chat template.

The work goes on in the engine after its client has left. So the limit is watched in a thread of its
own, and an engine that exceeds it is ended; the next request loads the model again.
"""

from __future__ import annotations

import select
import socket
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from threading import Thread
from typing import Any

from mes.embedded.client_connection import CLIENT_CHECK_SECONDS, ClientConnection
from mes.embedded.engine import Engine


class EngineStalled(Exception):
    """The engine did not answer within the limit, and was ended."""


class _SilenceLimit(ClientConnection):
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


def request_within_limit(
    engine: Engine, path: str, body: dict[str, Any], client: ClientConnection, **options: bool
) -> Any:
    """Return the answer of `Engine.request`. The engine is ended at `compile_timeout_seconds`.

    `options` are those of `_SilenceLimit`.

    Raises:
        EngineStalled: the engine did not answer in time.
        ClientLeft: the client has left; the limit holds nevertheless.
    """
    answer: Future[Any] = Future()

    def request() -> None:
        try:
            answer.set_result(engine.request(path, body, _SilenceLimit(engine, **options)))
        except BaseException as exc:
            answer.set_exception(exc)

    Thread(target=request, name="limited request", daemon=True).start()
    while True:
        try:
            return answer.result(CLIENT_CHECK_SECONDS)
        except NotYet:
            client.check()
