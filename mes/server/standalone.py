"""A server in one process: the worker of gunicorn without its master, for a runtime."""

from __future__ import annotations

import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger

from mes.server.gunicorn_interface import require_expected_gunicorn
from mes.server.polling_worker import BODY_THREADS, PollingWorker

_IDLE_CONNECTIONS = 1000


def serve(
    application: Any,
    listener: socket.socket,
    *,
    threads: int,
    max_body_bytes: int,
    write_timeout_seconds: float,
) -> None:
    """Serve a WSGI application until an exception, such as SystemExit, ends the main thread.

    Args:
        threads: the number of requests that are served at a time.
        max_body_bytes: the maximum size of a chunk; the application limits the whole body.
        write_timeout_seconds: how long a client may leave an answer or a stream unread.
    """
    require_expected_gunicorn()
    cfg = Config()
    cfg.set("threads", threads)
    cfg.set("worker_connections", threads + _IDLE_CONNECTIONS)
    cfg.set("keepalive", 75)
    cfg.set("loglevel", "warning")
    # Connections inherit both options. An answer is sent in two pieces, head and body.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    timeout = struct.pack("ll", int(write_timeout_seconds), int(write_timeout_seconds % 1 * 1e6))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    worker = StandaloneWorker(0, os.getppid(), [listener], None, 0, cfg, Logger(cfg))
    worker.wsgi = application
    worker.max_body_bytes = max_body_bytes
    worker.write_timeout_seconds = write_timeout_seconds
    worker.init_process()


class StandaloneWorker(PollingWorker):
    """A worker in the main thread of a program, which has no master and handles the signals."""

    max_body_bytes = 0
    write_timeout_seconds = 0.0

    def init_signals(self) -> None:
        """Leave signals to the program."""

    def load_wsgi(self) -> None:
        """Do nothing: `serve` has set the application."""

    def is_parent_alive(self) -> bool:
        return True  # there is no master

    def get_thread_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.cfg.threads + BODY_THREADS)
