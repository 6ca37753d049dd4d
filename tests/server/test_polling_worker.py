"""The worker of both servers keeps its connections in order when it has to close some."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn

from mes.server.standalone import StandaloneWorker


class IdleWorker(StandaloneWorker):
    """A worker whose rounds the test runs."""

    def run(self) -> None:
        """Do nothing: the test calls the methods."""


@pytest.fixture
def worker() -> IdleWorker:
    cfg = Config()
    worker = IdleWorker(0, os.getppid(), [], None, 0, cfg, Logger(cfg))
    worker.init_process()
    return worker


@pytest.fixture
def connect(worker) -> Iterator[Callable[[bytes], TConn]]:
    """Return a function that connects a client, which has sent some bytes."""
    with ExitStack() as stack:

        def connected(sent: bytes) -> TConn:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs).sendall(sent)
            worker.nr_conns += 1
            conn = TConn(worker.cfg, ours, ("192.0.2.1", 50_000), ("127.0.0.1", 1))
            worker.enqueue_req(conn)
            return conn

        yield connected


def arriving(worker: IdleWorker, connect: Callable[[bytes], TConn]) -> None:
    connect(b"GET / HTTP/1.1\r\n")


def lingering(worker: IdleWorker, connect: Callable[[bytes], TConn]) -> None:
    connect(b"no request\r\n\r\n")


def idle(worker: IdleWorker, connect: Callable[[bytes], TConn]) -> None:
    conn = connect(b"")
    worker._stop_arrival(conn)
    answered: Future[bool] = Future()
    answered.set_result(True)
    worker.finish_request(conn, answered)


@pytest.mark.parametrize("state", [arriving, lingering, idle])
def test_an_event_of_a_connection_that_was_closed_in_the_same_round_is_ignored(
    worker, connect, state
):
    """Otherwise the error would end the worker, with all requests that it serves."""
    state(worker, connect)
    (event,) = [
        key for key in worker.poller.get_map().values() if isinstance(key.fileobj, socket.socket)
    ]
    worker._make_room()
    assert worker.nr_conns == 0
    event.data(event.fileobj)
    assert worker.nr_conns == 0
